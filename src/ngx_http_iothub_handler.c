
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_handler.h"
#include "ngx_http_iothub_admit.h"
#include "ngx_http_iothub_answer.h"
#include "ngx_http_iothub_count.h"
#include "ngx_http_iothub_variables.h"


#define NGX_HTTP_IOTHUB_SYSTEM_HEADERS  4

/* of one webhook: all of them are looked at without a pause */

#define NGX_HTTP_IOTHUB_EVENTS_MAX      1000


/* NGX_OK: go on; NGX_DONE: the result is set; NGX_ERROR: no memory */

typedef ngx_int_t (*ngx_http_iothub_stage_pt)(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);


static ngx_int_t ngx_http_iothub_handshake(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_admit(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static void ngx_http_iothub_body_handler(ngx_http_request_t *r);
static void ngx_http_iothub_finish(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_finalize(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_end(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_loop(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf);
static ngx_int_t ngx_http_iothub_result(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_result_e result, const char *detail);
static ngx_int_t ngx_http_iothub_parse(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_deliver(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_validation(ngx_http_iothub_webhook_t *wh,
    ngx_str_t *code);
static ngx_int_t ngx_http_iothub_elements(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_elements_t *elements);
static ngx_int_t ngx_http_iothub_one(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_each(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx, ngx_http_iothub_elements_t *elements);
static ngx_int_t ngx_http_iothub_each_event(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static void ngx_http_iothub_each_finish(ngx_http_iothub_batch_t *b);
static void ngx_http_iothub_log(ngx_http_iothub_ctx_t *ctx);
static ngx_uint_t ngx_http_iothub_is_envelope(ngx_http_iothub_ctx_t *ctx,
    ngx_str_t *type);
static ngx_int_t ngx_http_iothub_body(ngx_http_request_t *r,
    ngx_str_t *body);
static ngx_int_t ngx_http_iothub_body_read(ngx_http_request_t *r,
    ngx_buf_t *b, u_char *p);
static ngx_int_t ngx_http_iothub_fields(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_overrides(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_texts(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_wanted(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_device(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_choose_hub(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_message_text(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_uint_t ngx_http_iothub_is_body(ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_system_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_content_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx, ngx_str_t *type, ngx_str_t *encoding);
static ngx_int_t ngx_http_iothub_check_message(ngx_http_iothub_ctx_t *ctx,
    ngx_str_t *type);
static ngx_uint_t ngx_http_iothub_is_json(ngx_str_t *type);
static ngx_int_t ngx_http_iothub_app_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_size(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_may_create(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_uint_t ngx_http_iothub_true(ngx_str_t *value);


/* from a webhook, or an element of it, to a delivery, in this order */

static const ngx_http_iothub_stage_pt  ngx_http_iothub_stages[] = {
    ngx_http_iothub_fields,
    ngx_http_iothub_texts,          /* as variables, they are escaped */
    ngx_http_iothub_overrides,
    ngx_http_iothub_wanted,
    ngx_http_iothub_device,
    ngx_http_iothub_choose_hub,
    ngx_http_iothub_message_text,
    ngx_http_iothub_headers,
    ngx_http_iothub_size,
    ngx_http_iothub_may_create,
    NULL
};


typedef enum {
    NGX_HTTP_IOTHUB_CONTENTTYPE = 0,
    NGX_HTTP_IOTHUB_CONTENTENCODING,
    NGX_HTTP_IOTHUB_MESSAGEID,
    NGX_HTTP_IOTHUB_CREATIONTIME
} ngx_http_iothub_system_e;


static const ngx_http_iothub_header_t  ngx_http_iothub_system[] = {
    { ngx_string("iothub-contenttype"),
      ngx_string("iothub-contenttype"), ngx_null_string },
    { ngx_string("iothub-contentencoding"),
      ngx_string("iothub-contentencoding"), ngx_null_string },
    { ngx_string("iothub-messageid"),
      ngx_string("iothub-messageid"), ngx_null_string },
    { ngx_string("iothub-creationtimeutc"),
      ngx_string("iothub-creationtimeutc"), ngx_null_string }
};


static ngx_str_t  ngx_http_iothub_json_type = ngx_string("application/json");
static ngx_str_t  ngx_http_iothub_utf_8 = ngx_string("utf-8");
static ngx_str_t  ngx_http_iothub_origin =
    ngx_string("webhook-request-origin");
static ngx_str_t  ngx_http_iothub_content_encoding =
    ngx_string("content-encoding");


ngx_int_t
ngx_http_iothub_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_http_iothub_ctx_t       *ctx;
    ngx_http_iothub_loc_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_iothub_module);

    if (ngx_http_iothub_target_passed(r, conf->target)) {
        return ngx_http_iothub_loop(r, conf);
    }

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_iothub_ctx_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->request = r;
    ctx->conf = conf;

    ngx_http_set_ctx(r, ctx, ngx_http_iothub_module);

    if (ctx->conf->pass == NULL) {

        /* of two "if" that hold, the first passes and the last configures */

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "iothub_pass of an \"if\" without effect: another "
                      "\"if\" after it is true, too");

        ctx->result = NGX_HTTP_IOTHUB_MISCONFIGURED;
        ctx->detail = "iothub_pass in an \"if\" is followed by another";

        ngx_http_iothub_count(ctx);

        return ngx_http_iothub_answer(r, ctx->conf, ctx->result, ctx->detail,
                                      0);
    }

    if (ctx->conf->pass->lengths == NULL) {
        ctx->hub = ctx->conf->pass->value;
    }

    rc = ngx_http_iothub_admit(r, ctx);

    /* what is the target's goes there when its signature was checked */

    if (rc == NGX_DONE
        && (conf->signature == NULL
            || !ngx_http_iothub_target_wants(conf->target, ctx->result)))
    {
        return ngx_http_iothub_end(r, ctx);
    }

    if (rc != NGX_OK && rc != NGX_DONE) {
        return NGX_ERROR;
    }

    if (r->method == NGX_HTTP_OPTIONS && conf->signature == NULL) {
        return ngx_http_iothub_handshake(r, ctx);
    }

    r->request_body_in_single_buf = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_iothub_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static ngx_int_t
ngx_http_iothub_handshake(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    /* a target that gets everything answers this, too */

    if (ngx_http_iothub_target_wants(ctx->conf->target, ctx->result)) {
        return ngx_http_iothub_end(r, ctx);
    }

    return ngx_http_iothub_answer_handshake(r,
                   ngx_http_iothub_header_in(r, &ngx_http_iothub_origin));
}


/* what the head alone tells: before the body is read, let alone parsed */

static ngx_int_t
ngx_http_iothub_admit(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t    rc;
    ngx_str_t   *value;
    const char  *detail;

    rc = ngx_http_iothub_admit_head(r, ctx->conf, &detail);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_UNAUTHORIZED,
                                      detail);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (!(r->method & ctx->conf->source->methods)) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_BAD_METHOD,
                                      "webhooks do not come by this method");
    }

    value = ngx_http_iothub_header_in(r, &ngx_http_iothub_content_encoding);

    if (value
        && !(value->len == 8
             && ngx_strncasecmp(value->data, (u_char *) "identity", 8) == 0))
    {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_BAD_MEDIA_TYPE,
                                      "send the webhook without a "
                                      "Content-Encoding");
    }

    return NGX_OK;
}


ngx_str_t *
ngx_http_iothub_header_in(void *data, ngx_str_t *name)
{
    ngx_http_request_t *r = data;

    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == name->len
            && ngx_strncmp(h[i].lowcase_key, name->data, name->len) == 0)
        {
            return &h[i].value;
        }
    }
}


static void
ngx_http_iothub_body_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    const char                  *detail;
    ngx_http_iothub_ctx_t       *ctx;
    ngx_http_iothub_delivery_t  *d;

    ctx = ngx_http_get_module_ctx(r, ngx_http_iothub_module);

    r->write_event_handler = ngx_http_request_empty_handler;

    d = &ctx->delivery;
    d->started = ngx_current_msec;
    d->deadline = ngx_current_msec
                  + (ctx->conf->deadline ? ctx->conf->deadline
                                         : ctx->conf->source->deadline);

    rc = ngx_http_iothub_admit_body(r, ctx->conf, &detail);

    if (rc == NGX_DECLINED) {
        (void) ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_UNAUTHORIZED,
                                      detail);
        ngx_http_iothub_finalize(r, ctx);
        return;
    }

    if (rc == NGX_OK && ctx->result != NGX_HTTP_IOTHUB_NO_RESULT) {
        ngx_http_iothub_finalize(r, ctx);
        return;
    }

    if (rc == NGX_OK && r->method == NGX_HTTP_OPTIONS) {
        ngx_http_finalize_request(r, ngx_http_iothub_handshake(r, ctx));
        return;
    }

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_parse(r, ctx);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_deliver(r, ctx);
    }

    if (rc == NGX_OK) {
        return;
    }

    if (rc != NGX_DONE) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "iothub webhook failed, the gateway is out of memory");
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }

    d->ended = ngx_current_msec;

    ngx_http_iothub_log(ctx);
    ngx_http_iothub_finalize(r, ctx);
}


/* NGX_OK: what follows follows by itself; NGX_DONE: the result is set */

static ngx_int_t
ngx_http_iothub_deliver(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_str_t                   code;
    ngx_http_iothub_elements_t  elements;

    if ((ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_VALIDATION)
        && ngx_http_iothub_validation(&ctx->webhook, &code) == NGX_OK)
    {
        if (ngx_http_iothub_target_wants(ctx->conf->target, ctx->result)) {
            ngx_http_iothub_finalize(r, ctx);
            return NGX_OK;
        }

        ngx_http_finalize_request(r, ngx_http_iothub_answer_validation(r,
                                                                  &code));
        return NGX_OK;
    }

    rc = ngx_http_iothub_elements(ctx, &elements);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_one(r, ctx);
    }

    return (rc == NGX_OK) ? ngx_http_iothub_each(r, ctx, &elements) : rc;
}


/* an Event Grid subscription that is to be confirmed, by an event alone */

static ngx_int_t
ngx_http_iothub_validation(ngx_http_iothub_webhook_t *wh, ngx_str_t *code)
{
    ngx_http_iothub_value_t    value;
    ngx_http_iothub_step_t     steps[3];
    ngx_http_iothub_locator_t  locator;

    static ngx_str_t  type =
        ngx_string("Microsoft.EventGrid.SubscriptionValidationEvent");

    ngx_memzero(&locator, sizeof(ngx_http_iothub_locator_t));
    ngx_memzero(steps, sizeof(steps));

    locator.kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;
    locator.steps = steps;
    locator.nsteps = 2;
    ngx_str_set(&steps[1].name, "eventType");

    if (ngx_http_iothub_webhook_find(wh, &locator, &value) != NGX_OK
        || value.type != NGX_HTTP_IOTHUB_STRING
        || value.text.len != type.len
        || ngx_memcmp(value.text.data, type.data, type.len) != 0)
    {
        return NGX_DECLINED;
    }

    locator.nsteps = 3;
    ngx_str_set(&steps[1].name, "data");
    ngx_str_set(&steps[2].name, "validationCode");

    if (ngx_http_iothub_webhook_find(wh, &locator, &value) != NGX_OK
        || value.type != NGX_HTTP_IOTHUB_STRING)
    {
        return NGX_DECLINED;
    }

    *code = value.raw;

    return NGX_OK;
}


/* what was not delivered, before any call; deliveries log themselves */

static void
ngx_http_iothub_log(ngx_http_iothub_ctx_t *ctx)
{
    if (ctx->result == NGX_HTTP_IOTHUB_FILTERED) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                  "iothub event not delivered, hub: \"%V\", result: %V: %s",
                  &ctx->hub, &ngx_http_iothub_results[ctx->result].word,
                  ctx->detail ? ctx->detail : "-");
}


/* NGX_OK: the delivery is started; NGX_DONE: the result is set; NGX_ERROR */

static ngx_int_t
ngx_http_iothub_one(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                    rc;
    ngx_uint_t                   i;
    ngx_http_iothub_delivery_t  *d;

    for (i = 0; ngx_http_iothub_stages[i]; i++) {

        rc = ngx_http_iothub_stages[i](r, ctx);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    d = &ctx->delivery;

    d->request = r;
    d->handler = ngx_http_iothub_finish;
    d->data = ctx;

    ngx_http_iothub_delivery_start(d);

    return NGX_OK;
}


/* NGX_OK: the webhook holds several events; NGX_DECLINED: one; NGX_DONE */

static ngx_int_t
ngx_http_iothub_elements(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_elements_t *elements)
{
    ngx_http_iothub_locator_t  *each;

    each = ctx->conf->each;

    if (each == NULL) {
        each = ctx->conf->source->each;

        return each ? ngx_http_iothub_webhook_first(&ctx->webhook, each,
                                                    elements)
                    : NGX_DECLINED;
    }

    if (ngx_http_iothub_webhook_first(&ctx->webhook, each, elements)
        != NGX_OK)
    {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                      "the webhook has no array where "
                                      "iothub_each looks for it");
    }

    return NGX_OK;
}


/*
 * Each element is an event.  nginx remembers the values of variables in the
 * request: before each element, it forgets those of the one before.
 */

static ngx_int_t
ngx_http_iothub_each(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_elements_t *elements)
{
    size_t                      size;
    ngx_int_t                   rc;
    ngx_http_iothub_batch_t    *b;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_variable_value_t  *saved;
    ngx_http_iothub_webhook_t   whole;

    b = ngx_pcalloc(r->pool, sizeof(ngx_http_iothub_batch_t));
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (ngx_array_init(&b->events, r->pool, 16,
                       sizeof(ngx_http_iothub_batch_event_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    size = cmcf->variables.nelts * sizeof(ngx_http_variable_value_t);

    saved = ngx_palloc(r->pool, size);
    if (saved == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(saved, r->variables, size);

    whole = ctx->webhook;
    elements->wh = &whole;
    ctx->batch = b;

    for ( ;; ) {
        rc = ngx_http_iothub_webhook_next(elements, &ctx->webhook);

        if (rc == NGX_DONE) {
            break;
        }

        if (b->events.nelts == NGX_HTTP_IOTHUB_EVENTS_MAX) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_TOO_LARGE,
                                          "more than 1000 events in a "
                                          "webhook");
        }

        ngx_memcpy(r->variables, saved, size);

        if (rc != NGX_OK || ngx_http_iothub_each_event(r, ctx) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_memcpy(r->variables, saved, size);

    ctx->webhook = whole;
    ctx->result = NGX_HTTP_IOTHUB_NO_RESULT;
    ctx->detail = NULL;

    b->request = r;
    b->deadline = ctx->delivery.deadline;
    b->total = &ctx->delivery;
    b->handler = ngx_http_iothub_each_finish;
    b->data = ctx;

    return ngx_http_iothub_batch_start(b);
}


static ngx_int_t
ngx_http_iothub_each_event(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i;
    ngx_http_iothub_batch_event_t  *event;

    event = ngx_array_push(&ctx->batch->events);
    if (event == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&ctx->event, sizeof(ngx_http_iothub_event_t));
    ngx_memzero(&ctx->delivery.message, sizeof(ngx_http_iothub_message_t));
    ngx_memzero(event, sizeof(ngx_http_iothub_batch_event_t));
    ctx->delivery.may_create = 0;

    for (i = 0; ngx_http_iothub_stages[i]; i++) {

        rc = ngx_http_iothub_stages[i](r, ctx);

        if (rc == NGX_DONE) {
            event->result = ctx->result;
            event->detail = ctx->detail;
            event->device_id = ctx->event.device_id;

            ngx_http_iothub_log(ctx);
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    event->hub = ctx->delivery.hub;
    event->device_id = ctx->event.device_id;
    event->message = ctx->delivery.message;
    event->may_create = ctx->delivery.may_create;

    return NGX_OK;
}


static void
ngx_http_iothub_each_finish(ngx_http_iothub_batch_t *b)
{
    ngx_http_iothub_ctx_t *ctx = b->data;

    ngx_http_iothub_batch_event_t  *event;

    ctx->result = b->result;
    ctx->detail = b->detail;
    ctx->delivery.result = b->result;

    /* the log shows the one that decided */

    if (b->events.nelts) {
        event = b->events.elts;

        ngx_memzero(&ctx->event, sizeof(ngx_http_iothub_event_t));
        ctx->event.device_id = event[b->shown].device_id;
        ctx->delivery.message = event[b->shown].message;
        ngx_http_iothub_variables_reset(ctx->request);
    }

    if (ctx->delivery.running) {
        ctx->request->keepalive = 0;
    }

    ngx_http_iothub_finalize(ctx->request, ctx);
}


static void
ngx_http_iothub_finish(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_ctx_t  *ctx = d->data;

    ctx->result = d->result;
    ctx->detail = d->detail;

    if (d->running) {

        /* the call keeps the request, and with it the connection */

        ctx->request->keepalive = 0;
    }

    ngx_http_iothub_finalize(ctx->request, ctx);
}


static void
ngx_http_iothub_finalize(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_http_finalize_request(r, ngx_http_iothub_end(r, ctx));
}


/* the result is there: what follows is the target's answer, or ours */

static ngx_int_t
ngx_http_iothub_end(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_http_iothub_count(ctx);

    if (ngx_http_iothub_target_wants(ctx->conf->target, ctx->result)) {

        ctx->handed_over = 1;

        return ngx_http_iothub_target_pass(r, ctx->conf->target, ctx);
    }

    /* nginx would ask for the body only to throw it away */

    if (r->headers_in.expect && !r->expect_tested) {
        r->expect_tested = 1;
        r->keepalive = 0;
    }

    return ngx_http_iothub_answer(r, ctx->conf, ctx->result, ctx->detail,
                                  ctx->delivery.retry_after);
}


/* the log goes on to show the outcome of the delivery */

static ngx_int_t
ngx_http_iothub_loop(ngx_http_request_t *r, ngx_http_iothub_loc_conf_t *conf)
{
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "iothub_target \"%V\" leads back to its own iothub_pass",
                  &conf->target->name);

    return ngx_http_iothub_answer(r, conf, NGX_HTTP_IOTHUB_MISCONFIGURED,
                                  "iothub_target leads back to its own "
                                  "iothub_pass", 0);
}


ngx_http_iothub_result_e
ngx_http_iothub_outcome(ngx_http_iothub_ctx_t *ctx)
{
    if (ctx->result != NGX_HTTP_IOTHUB_NO_RESULT) {
        return ctx->result;
    }

    /* deliveries that were cut off */

    if (ctx->batch && ctx->batch->handler) {
        return NGX_HTTP_IOTHUB_TIMEOUT;
    }

    return ctx->delivery.result;
}


ngx_http_iothub_ctx_t *
ngx_http_iothub_find_ctx(ngx_http_request_t *r)
{
    ngx_http_iothub_ctx_t  *ctx;

    for ( /* void */ ; r; r = r->parent) {
        ctx = ngx_http_get_module_ctx(r, ngx_http_iothub_module);

        if (ctx == NULL) {
            ctx = ngx_http_iothub_target_data(r);
        }

        if (ctx || r == r->main) {
            return ctx;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_iothub_result(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_result_e result, const char *detail)
{
    ctx->result = result;
    ctx->detail = detail;

    return NGX_DONE;
}


static ngx_int_t
ngx_http_iothub_parse(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_str_t                   body, *type;
    ngx_http_iothub_format_e    format;
    ngx_http_iothub_webhook_t  *wh;

    wh = &ctx->webhook;

    if (ngx_http_iothub_body(r, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    type = r->headers_in.content_type ? &r->headers_in.content_type->value
                                      : NULL;

    rc = ngx_http_iothub_webhook_format(type, &body, &format);

    if (body.len == 0 && r->method == NGX_HTTP_GET) {
        format = NGX_HTTP_IOTHUB_NO_BODY;
        rc = NGX_OK;
    }

    if ((ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_ANY_TYPE)
        && !ngx_http_iothub_is_envelope(ctx, type)
        && (rc != NGX_OK
            || (type == NULL && format == NGX_HTTP_IOTHUB_FORM)))
    {
        format = NGX_HTTP_IOTHUB_RAW;
        rc = NGX_OK;
    }

    if (rc != NGX_OK) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_BAD_MEDIA_TYPE,
                                      "send application/json or "
                                      "application/x-www-form-urlencoded, "
                                      "in UTF-8");
    }

    rc = ngx_http_iothub_webhook_parse(r->pool, wh, format, &body, &r->args);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_MALFORMED,
                                      wh->reason);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->parsed = 1;
    wh->header = ngx_http_iothub_header_in;
    wh->header_data = r;

    /* what was looked up before the body was here is looked up again */

    ngx_http_iothub_variables_reset(r);

    return NGX_OK;
}


/* a CloudEvent that is all in the body, in whatever format: not just data */

static ngx_uint_t
ngx_http_iothub_is_envelope(ngx_http_iothub_ctx_t *ctx, ngx_str_t *type)
{
    static ngx_str_t  start = ngx_string("application/cloudevents");

    return (ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_ENVELOPE)
           && type && type->len >= start.len
           && ngx_strncasecmp(type->data, start.data, start.len) == 0;
}


static ngx_int_t
ngx_http_iothub_body(ngx_http_request_t *r, ngx_str_t *body)
{
    u_char       *p;
    size_t        len;
    ngx_chain_t  *cl;

    ngx_str_null(body);

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL && !cl->buf->in_file) {
        body->data = cl->buf->pos;
        body->len = cl->buf->last - cl->buf->pos;
        return NGX_OK;
    }

    /* several buffers, a file, or both */

    len = 0;

    for ( /* void */ ; cl; cl = cl->next) {
        len += ngx_buf_size(cl->buf);
    }

    body->data = ngx_pnalloc(r->pool, len);
    if (body->data == NULL) {
        return NGX_ERROR;
    }

    body->len = len;

    for (p = body->data, cl = r->request_body->bufs; cl; cl = cl->next) {

        if (ngx_http_iothub_body_read(r, cl->buf, p) != NGX_OK) {
            return NGX_ERROR;
        }

        p += ngx_buf_size(cl->buf);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_body_read(ngx_http_request_t *r, ngx_buf_t *b, u_char *p)
{
    size_t   size;
    ssize_t  n;

    size = ngx_buf_size(b);

    if (!b->in_file || ngx_buf_in_memory(b)) {
        ngx_memcpy(p, b->pos, size);
        return NGX_OK;
    }

    n = ngx_read_file(b->file, p, size, b->file_pos);

    if (n != (ssize_t) size) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                      "iothub could not read the webhook's body from \"%V\"",
                      &b->file->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_fields(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                 rc;
    ngx_str_t                *texts[NGX_HTTP_IOTHUB_OVERRIDES];
    ngx_uint_t                i;
    ngx_http_iothub_event_t  *ev;
    ngx_http_iothub_value_t   value;

    ev = &ctx->event;

    texts[NGX_HTTP_IOTHUB_DEVICE_ID] = &ev->device_id;
    texts[NGX_HTTP_IOTHUB_EVENT] = &ev->name;
    texts[NGX_HTTP_IOTHUB_DATA] = NULL;
    texts[NGX_HTTP_IOTHUB_PUBLISHED_AT] = &ev->published_at;
    texts[NGX_HTTP_IOTHUB_MESSAGE_ID] = &ev->message_id;

    for (i = 0; i < NGX_HTTP_IOTHUB_FIELDS; i++) {

        rc = ngx_http_iothub_source_find(ctx->conf->source, i, &ctx->webhook,
                                         &value);

        if (rc == NGX_DECLINED) {
            continue;
        }

        if (rc == NGX_ABORT) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_MALFORMED,
                                          ctx->webhook.reason);
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        if (i == NGX_HTTP_IOTHUB_DATA) {
            ev->data = value;
            ev->has_data = 1;
            continue;
        }

        if (ngx_http_iothub_webhook_text(r->pool, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (i == NGX_HTTP_IOTHUB_FW_VERSION) {
            ev->fw_version = value;
            ev->has_fw_version = 1;
            continue;
        }

        *texts[i] = value.text;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_overrides(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t                 text[NGX_HTTP_IOTHUB_OVERRIDES];
    ngx_uint_t                i, n;
    ngx_http_iothub_event_t  *ev;

    ev = &ctx->event;
    n = 0;

    /* all are made of the sender's own fields, not of each other */

    for (i = 0; i < NGX_HTTP_IOTHUB_OVERRIDES; i++) {

        if (ctx->conf->fields[i] == NULL) {
            continue;
        }

        if (ngx_http_complex_value(r, ctx->conf->fields[i], &text[i])
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* what is made empty was not sent */

        if (text[i].len == 0) {
            ngx_str_null(&text[i]);
        }

        n++;
    }

    if (n == 0) {
        return NGX_OK;
    }

    if (ctx->conf->fields[NGX_HTTP_IOTHUB_DEVICE_ID]) {
        ev->device_id = text[NGX_HTTP_IOTHUB_DEVICE_ID];
    }

    if (ctx->conf->fields[NGX_HTTP_IOTHUB_EVENT]) {
        ev->name = text[NGX_HTTP_IOTHUB_EVENT];
    }

    if (ctx->conf->fields[NGX_HTTP_IOTHUB_PUBLISHED_AT]) {
        ev->published_at = text[NGX_HTTP_IOTHUB_PUBLISHED_AT];
    }

    if (ctx->conf->fields[NGX_HTTP_IOTHUB_MESSAGE_ID]) {
        ev->message_id = text[NGX_HTTP_IOTHUB_MESSAGE_ID];
    }

    if (ctx->conf->fields[NGX_HTTP_IOTHUB_DATA]) {
        ngx_memzero(&ev->data, sizeof(ngx_http_iothub_value_t));
        ev->data.type = NGX_HTTP_IOTHUB_STRING;
        ev->data.raw = text[NGX_HTTP_IOTHUB_DATA];
        ev->data.text = text[NGX_HTTP_IOTHUB_DATA];
        ev->has_data = (text[NGX_HTTP_IOTHUB_DATA].len != 0);
    }

    ngx_http_iothub_variables_reset(r);

    return ngx_http_iothub_texts(r, ctx);
}


/* texts that go into headers, paths and logs have no control characters */

static ngx_int_t
ngx_http_iothub_texts(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_http_iothub_event_t  *ev;

    ev = &ctx->event;

    if (ngx_http_iothub_event_has_controls(&ev->device_id)
        || ngx_http_iothub_event_has_controls(&ev->name)
        || ngx_http_iothub_event_has_controls(&ev->published_at)
        || ngx_http_iothub_event_has_controls(&ev->message_id))
    {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                      "control characters in the device id, "
                                      "event, time or message id");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_wanted(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t                 *name, *prefix, value;
    ngx_uint_t                 i;
    ngx_array_t               *match, *filters;
    ngx_http_complex_value_t  *cv;

    match = ctx->conf->match;

    if (match) {
        name = &ctx->event.name;

        if (name->len == 0) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                          "the webhook names no event");
        }

        prefix = match->elts;

        for (i = 0; i < match->nelts; i++) {
            if (name->len >= prefix[i].len
                && ngx_memcmp(name->data, prefix[i].data, prefix[i].len) == 0)
            {
                break;
            }
        }

        if (i == match->nelts) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_FILTERED,
                                          NULL);
        }
    }

    filters = ctx->conf->filters;

    if (filters == NULL) {
        return NGX_OK;
    }

    cv = filters->elts;

    for (i = 0; i < filters->nelts; i++) {

        if (ngx_http_complex_value(r, &cv[i], &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (!ngx_http_iothub_true(&value)) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_FILTERED,
                                          NULL);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_device(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
#if (NGX_PCRE)
    ngx_int_t    rc;
#endif
    ngx_str_t   *id;
    const char  *reason;

    id = &ctx->event.device_id;

    if (id->len == 0) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                      "the webhook has no device id");
    }

    if (!ngx_http_iothub_event_device_id_valid(id, &reason)) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED, reason);
    }

#if (NGX_PCRE)

    if (ctx->conf->device_pattern == NULL) {
        return NGX_OK;
    }

    rc = ngx_regex_exec(ctx->conf->device_pattern, id, NULL, 0);

    if (rc == NGX_REGEX_NO_MATCHED) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                      "the device id does not match "
                                      "iothub_device_pattern");
    }

    if (rc < 0) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                      ngx_regex_exec_n " failed: %i on \"%V\" using \"%V\"",
                      rc, id, &ctx->conf->device_pattern_text);
        return NGX_ERROR;
    }

#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_choose_hub(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_http_iothub_hub_t        *hub;
    ngx_http_iothub_main_conf_t  *imcf;

    hub = ctx->conf->hub;

    if (hub == NULL) {

        if (ngx_http_complex_value(r, ctx->conf->pass, &ctx->hub) != NGX_OK) {
            return NGX_ERROR;
        }

        imcf = ngx_http_get_module_main_conf(r, ngx_http_iothub_module);
        hub = ngx_http_iothub_hub_find(&imcf->hubs, &ctx->hub);

        if (hub == NULL) {

            /* it may come from the webhook: it is not quoted */

            ngx_str_null(&ctx->hub);

            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_MISCONFIGURED,
                                          "iothub_pass names a hub that is "
                                          "not declared");
        }

        ctx->hub = hub->name;
    }

    ctx->delivery.hub = hub;

    if (ctx->batch == NULL) {
        ctx->delivery.device_id = ctx->event.device_id;
        ngx_http_iothub_delivery_prepare(&ctx->delivery);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_message_text(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t  *body;

    body = &ctx->delivery.message.body;

    if (ctx->conf->message) {
        return ngx_http_iothub_template_eval(r, ctx->conf->message, body);
    }

    if (ngx_http_iothub_is_body(ctx)) {
        *body = ctx->webhook.element ? ctx->webhook.root : ctx->webhook.body;
        return NGX_OK;
    }

    return ngx_http_iothub_event_body(r->pool, &ctx->event,
                                      ctx->conf->data_as, body);
}


/* is the sender's body the message? */

static ngx_uint_t
ngx_http_iothub_is_body(ngx_http_iothub_ctx_t *ctx)
{
    return ctx->conf->message == NULL
           && !(ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_PARTICLE)
           && ctx->webhook.format != NGX_HTTP_IOTHUB_NO_BODY;
}


static ngx_int_t
ngx_http_iothub_headers(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_uint_t                  n;
    ngx_http_iothub_message_t  *message;

    message = &ctx->delivery.message;

    n = NGX_HTTP_IOTHUB_SYSTEM_HEADERS
        + (ctx->conf->properties ? ctx->conf->properties->nelts : 0);

    message->headers = ngx_palloc(r->pool,
                                  n * sizeof(ngx_http_iothub_header_t));
    if (message->headers == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_system_headers(r, ctx);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_iothub_app_headers(r, ctx);
}


static ngx_int_t
ngx_http_iothub_system_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_str_t                   values[NGX_HTTP_IOTHUB_SYSTEM_HEADERS];
    ngx_uint_t                  i;
    ngx_http_iothub_header_t   *h;
    ngx_http_iothub_message_t  *message;

    message = &ctx->delivery.message;

    if (ngx_http_iothub_content_headers(r, ctx,
                                  &values[NGX_HTTP_IOTHUB_CONTENTTYPE],
                                  &values[NGX_HTTP_IOTHUB_CONTENTENCODING])
        != NGX_OK
        || ngx_http_iothub_event_set_time(r->pool, &ctx->event) != NGX_OK
        || ngx_http_iothub_event_message_id(r->pool, &ctx->event,
                                          &values[NGX_HTTP_IOTHUB_MESSAGEID])
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->event.message_id = values[NGX_HTTP_IOTHUB_MESSAGEID];
    values[NGX_HTTP_IOTHUB_CREATIONTIME] = ctx->event.time;

    rc = ngx_http_iothub_check_message(ctx,
                                       &values[NGX_HTTP_IOTHUB_CONTENTTYPE]);
    if (rc != NGX_OK) {
        return rc;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_SYSTEM_HEADERS; i++) {

        if (values[i].len == 0) {
            continue;
        }

        /* the message id and the time were made to be valid */

        if (i < NGX_HTTP_IOTHUB_MESSAGEID
            && !ngx_http_iothub_event_property_value_valid(&values[i]))
        {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                          "iothub_content_type or "
                                          "iothub_content_encoding has a "
                                          "character that no header takes");
        }

        h = &message->headers[message->nheaders++];
        *h = ngx_http_iothub_system[i];
        h->value = values[i];
    }

    return NGX_OK;
}


/* what the message is: by the configuration, else JSON, else as the sender */

static ngx_int_t
ngx_http_iothub_content_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx, ngx_str_t *type, ngx_str_t *encoding)
{
    ngx_http_iothub_loc_conf_t  *conf;

    conf = ctx->conf;

    *type = ngx_http_iothub_json_type;
    *encoding = ngx_http_iothub_utf_8;

    if (ngx_http_iothub_is_body(ctx)
        && ctx->webhook.format != NGX_HTTP_IOTHUB_JSON)
    {
        /* what the sender says it is, if anything */

        ngx_str_null(type);
        ngx_str_null(encoding);

        if (r->headers_in.content_type) {
            *type = r->headers_in.content_type->value;
        }
    }

    if ((conf->content_type
         && ngx_http_complex_value(r, conf->content_type, type) != NGX_OK)
        || (conf->content_encoding
            && ngx_http_complex_value(r, conf->content_encoding, encoding)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* a template that the hub could not read would be lost in its routes */

static ngx_int_t
ngx_http_iothub_check_message(ngx_http_iothub_ctx_t *ctx, ngx_str_t *type)
{
    ngx_int_t  rc;
    ngx_str_t  text;

    if (ctx->conf->message == NULL || !ngx_http_iothub_is_json(type)) {
        return NGX_OK;
    }

    rc = ngx_http_iothub_webhook_embed(&ctx->delivery.message.body, &text);

    if (rc == NGX_DECLINED) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                      "iothub_message made no JSON of this "
                                      "webhook, and the content type is JSON");
    }

    return rc;
}


/* with parameters or without, but not application/json-seq and the like */

static ngx_uint_t
ngx_http_iothub_is_json(ngx_str_t *type)
{
    u_char  ch;
    size_t  len;

    len = ngx_http_iothub_json_type.len;

    if (type->len < len
        || ngx_strncasecmp(type->data, ngx_http_iothub_json_type.data, len)
           != 0)
    {
        return 0;
    }

    if (type->len == len) {
        return 1;
    }

    ch = type->data[len];

    return ch == ';' || ch == ' ' || ch == '\t';
}


static ngx_int_t
ngx_http_iothub_app_headers(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t                    value;
    ngx_uint_t                   i;
    ngx_http_iothub_header_t    *h;
    ngx_http_iothub_message_t   *message;
    ngx_http_iothub_property_t  *property;

    if (ctx->conf->properties == NULL) {
        return NGX_OK;
    }

    message = &ctx->delivery.message;
    property = ctx->conf->properties->elts;

    for (i = 0; i < ctx->conf->properties->nelts; i++) {

        if (ngx_http_complex_value(r, &property[i].value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0) {
            continue;
        }

        if (!ngx_http_iothub_event_property_value_valid(&value)) {
            return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_REJECTED,
                                          "an application property has a "
                                          "character that the hub does not "
                                          "take: only printable ASCII, blank "
                                          "and tab are");
        }

        h = &message->headers[message->nheaders++];
        h->key = property[i].key;
        h->lowcase = property[i].lowcase;
        h->value = value;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_size(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    size_t  size;

    size = ngx_http_iothub_message_size(&ctx->delivery.message);

    if (size > NGX_HTTP_IOTHUB_EVENT_MESSAGE_MAX) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_TOO_LARGE,
                                      "the hub takes no message of more "
                                      "than 256 KB");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_may_create(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t  value;

    ctx->delivery.may_create = 1;

    if (ctx->conf->create == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, ctx->conf->create, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->delivery.may_create = ngx_http_iothub_true(&value) ? 1 : 0;

    return NGX_OK;
}


/* as nginx's predicates are */

static ngx_uint_t
ngx_http_iothub_true(ngx_str_t *value)
{
    return value->len && !(value->len == 1 && value->data[0] == '0');
}
