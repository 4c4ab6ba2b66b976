
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_handler.h"
#include "ngx_http_iothub_admit.h"
#include "ngx_http_iothub_answer.h"
#include "ngx_http_iothub_compose.h"
#include "ngx_http_iothub_count.h"
#include "ngx_http_iothub_intake.h"
#include "ngx_http_iothub_variables.h"


/* of one webhook: all of them are looked at without a pause */

#define NGX_HTTP_IOTHUB_EVENTS_MAX      1000

/* of its events that cannot be delivered, so many have a line in the log */

#define NGX_HTTP_IOTHUB_EVENTS_LOGGED   10


static ngx_int_t ngx_http_iothub_handshake(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_admit(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_uint_t ngx_http_iothub_is_encoded(ngx_http_request_t *r);
static void ngx_http_iothub_body_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_iothub_is_whole(ngx_http_request_t *r);
static void ngx_http_iothub_not_whole(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static void ngx_http_iothub_finish(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_finalize(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_end(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);
static ngx_int_t ngx_http_iothub_loop(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf);
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

    if (ngx_http_iothub_is_encoded(r)) {
        return ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_BAD_MEDIA_TYPE,
                                      "send the webhook without a "
                                      "Content-Encoding");
    }

    return NGX_OK;
}


/* of several such headers, each says what was done to the body */

static ngx_uint_t
ngx_http_iothub_is_encoded(ngx_http_request_t *r)
{
    ngx_str_t        *name;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    name = &ngx_http_iothub_content_encoding;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == name->len
                && ngx_strncmp(h[i].lowcase_key, name->data, name->len) == 0
                && !(h[i].value.len == 8
                     && ngx_strncasecmp(h[i].value.data,
                                        (u_char *) "identity", 8) == 0))
            {
                return 1;
            }
        }
    }

    return 0;
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

    if (r == r->main && !ngx_http_iothub_is_whole(r)) {
        ngx_http_iothub_not_whole(r, ctx);
        return;
    }

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
        rc = ngx_http_iothub_intake(r, ctx);
    }

    if (rc == NGX_OK && ctx->conf->target) {
        ctx->variables = ngx_http_iothub_variables_save(r);
        rc = ctx->variables ? NGX_OK : NGX_ERROR;
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


/*
 * An error_page may lead here when nginx has thrown the body away, as it does
 * with a 413, or when an unbuffered proxy has sent some of it elsewhere.
 */

static ngx_uint_t
ngx_http_iothub_is_whole(ngx_http_request_t *r)
{
    off_t                     len, size;
    ngx_chain_t              *cl;
    ngx_http_request_body_t  *rb;

    rb = r->request_body;

    if (r->discard_body || r->reading_body || (rb && rb->rest > 0)) {
        return 0;
    }

    if (r->headers_in.content_length) {
        len = ngx_atoof(r->headers_in.content_length->value.data,
                        r->headers_in.content_length->value.len);

    } else {
        len = r->headers_in.chunked ? r->headers_in.content_length_n : 0;
    }

    size = 0;

    for (cl = rb ? rb->bufs : NULL; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    return size >= len;
}


/* part of a webhook is none, and not for the target either */

static void
ngx_http_iothub_not_whole(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    (void) ngx_http_iothub_result(ctx, NGX_HTTP_IOTHUB_MISCONFIGURED,
                                  "the body of the webhook was taken or "
                                  "thrown away before iothub_pass");
    ngx_http_iothub_log(ctx);
    ngx_http_iothub_count(ctx);

    ngx_http_finalize_request(r, ngx_http_iothub_answer(r, ctx->conf,
                                                        ctx->result,
                                                        ctx->detail, 0));
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

        ctx->answered = 1;

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

    /* events beside it would be lost */

    locator.nsteps = 1;
    steps[0].index = 1;

    return ngx_http_iothub_webhook_find_raw(wh, &locator, &value)
           == NGX_DECLINED ? NGX_OK : NGX_DECLINED;
}


/* what was not delivered, before any call; deliveries log themselves */

static void
ngx_http_iothub_log(ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t    device, none;
    const char  *reason;

    if (ctx->result == NGX_HTTP_IOTHUB_FILTERED) {
        return;
    }

    /* what is no device id may be anything: it is not quoted */

    ngx_str_null(&none);

    device = ngx_http_iothub_event_device_id_valid(&ctx->event.device_id,
                                                   &reason)
             ? ctx->event.device_id : none;

    ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                  NGX_HTTP_IOTHUB_LOG_LINE, "iothub event not delivered",
                  &ctx->hub, &device, "webhook",
                  &ngx_http_iothub_results[ctx->result].word, (ngx_uint_t) 0,
                  &none, &none, (ngx_uint_t) 0,
                  ctx->detail ? ctx->detail : "-");
}


/* NGX_OK: the delivery is started; NGX_DONE: the result is set; NGX_ERROR */

static ngx_int_t
ngx_http_iothub_one(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t                    rc;
    ngx_http_iothub_delivery_t  *d;

    rc = ngx_http_iothub_compose(r, ctx);

    if (rc != NGX_OK) {
        return rc;
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

        /* of a CloudEvent in binary mode, the body is its data alone */

        if (each == NULL
            || ngx_http_iothub_source_by_header(ctx->conf->source,
                                                &ctx->webhook))
        {
            return NGX_DECLINED;
        }

        return ngx_http_iothub_webhook_first(&ctx->webhook, each, elements);
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
    size_t                        size;
    ngx_int_t                     rc;
    ngx_http_iothub_batch_t      *b;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_variable_value_t    *saved;
    ngx_http_iothub_webhook_t     whole;
    ngx_http_iothub_main_conf_t  *imcf;

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

    /* a request has one, and would get another with each event */

    imcf = ngx_http_get_module_main_conf(r, ngx_http_iothub_module);
    (void) ngx_http_get_indexed_variable(r, imcf->request_id);

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

    if (b->failed > NGX_HTTP_IOTHUB_EVENTS_LOGGED) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "iothub events not delivered, hub: \"%V\": %ui more of "
                      "the same webhook", &ctx->hub,
                      b->failed - NGX_HTTP_IOTHUB_EVENTS_LOGGED);
    }

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
    ngx_http_iothub_batch_event_t  *event;

    event = ngx_array_push(&ctx->batch->events);
    if (event == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&ctx->event, sizeof(ngx_http_iothub_event_t));
    ngx_memzero(&ctx->delivery.message, sizeof(ngx_http_iothub_message_t));
    ngx_memzero(event, sizeof(ngx_http_iothub_batch_event_t));
    ctx->delivery.may_create = 0;

    rc = ngx_http_iothub_compose(r, ctx);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    event->device_id = ctx->event.device_id;

    if (rc == NGX_DONE) {
        event->result = ctx->result;
        event->detail = ctx->detail;

        if (ctx->result != NGX_HTTP_IOTHUB_FILTERED
            && ctx->batch->failed++ < NGX_HTTP_IOTHUB_EVENTS_LOGGED)
        {
            ngx_http_iothub_log(ctx);
        }

        return NGX_OK;
    }

    event->hub = ctx->delivery.hub;
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

        if (event[b->shown].hub) {
            ctx->delivery.hub = event[b->shown].hub;
            ctx->hub = ctx->delivery.hub->name;
        }

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

    ctx->answered = 1;

    if (ngx_http_iothub_target_wants(ctx->conf->target, ctx->result)) {

        if (ctx->variables) {
            ngx_http_iothub_variables_escape(r, ctx->variables);
        }

        return ngx_http_iothub_target_pass(r, ctx->conf->target, ctx);
    }

    ngx_http_iothub_variables_reset(r);

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


ngx_int_t
ngx_http_iothub_result(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_result_e result, const char *detail)
{
    ctx->result = result;
    ctx->detail = detail;

    return NGX_DONE;
}
