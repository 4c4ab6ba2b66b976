
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_compose.h"
#include "ngx_http_iothub_variables.h"


#define NGX_HTTP_IOTHUB_SYSTEM_HEADERS  4


/* NGX_OK: go on; NGX_DONE: the result is set; NGX_ERROR: no memory */

typedef ngx_int_t (*ngx_http_iothub_stage_pt)(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx);


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
static ngx_int_t ngx_http_iothub_time_and_id(ngx_http_request_t *r,
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
    ngx_http_iothub_time_and_id,
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


/* the properties of each message, with what they are by default */

static const ngx_http_iothub_header_t  ngx_http_iothub_system[] = {
    { ngx_string("iothub-contenttype"),
      ngx_string("iothub-contenttype"), ngx_string("application/json") },
    { ngx_string("iothub-contentencoding"),
      ngx_string("iothub-contentencoding"), ngx_string("utf-8") },
    { ngx_string("iothub-messageid"),
      ngx_string("iothub-messageid"), ngx_null_string },
    { ngx_string("iothub-creationtimeutc"),
      ngx_string("iothub-creationtimeutc"), ngx_null_string }
};


ngx_int_t
ngx_http_iothub_compose(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    for (i = 0; ngx_http_iothub_stages[i]; i++) {

        rc = ngx_http_iothub_stages[i](r, ctx);

        if (rc != NGX_OK) {
            return rc;
        }
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


/* before the message, which may hold them */

static ngx_int_t
ngx_http_iothub_time_and_id(ngx_http_request_t *r, ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t  id;

    if (ngx_http_iothub_event_set_time(r->pool, &ctx->event) != NGX_OK
        || ngx_http_iothub_event_message_id(r->pool, &ctx->event, &id)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->event.message_id = id;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_message_text(ngx_http_request_t *r,
    ngx_http_iothub_ctx_t *ctx)
{
    ngx_str_t                  *body;
    ngx_http_iothub_message_t  *message;

    message = &ctx->delivery.message;
    body = &message->body;

    if (ctx->conf->message) {
        return ngx_http_iothub_template_eval(r, ctx->conf->message, body);
    }

    if (ngx_http_iothub_is_body(ctx)) {
        *body = ctx->webhook.element ? ctx->webhook.root : ctx->webhook.body;
        return NGX_OK;
    }

    /* in a batch, it goes in as base64 */

    return ngx_http_iothub_event_body(r->pool, &ctx->event,
                                      ctx->conf->data_as, body,
                                      ctx->batch ? NULL : &message->slice,
                                      &message->at);
}


/* is the sender's body the message?  An empty one, if there is no data */

static ngx_uint_t
ngx_http_iothub_is_body(ngx_http_iothub_ctx_t *ctx)
{
    return ctx->conf->message == NULL
           && !(ctx->conf->source->flags & NGX_HTTP_IOTHUB_SOURCE_PARTICLE)
           && ctx->webhook.format != NGX_HTTP_IOTHUB_NO_BODY
           && (ctx->webhook.body.len || !ctx->event.has_data);
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
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    values[NGX_HTTP_IOTHUB_MESSAGEID] = ctx->event.message_id;
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
            && values[i].data != ngx_http_iothub_system[i].value.data
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

    *type = ngx_http_iothub_system[NGX_HTTP_IOTHUB_CONTENTTYPE].value;
    *encoding = ngx_http_iothub_system[NGX_HTTP_IOTHUB_CONTENTENCODING].value;

    if (ngx_http_iothub_is_body(ctx)
        && ctx->webhook.format != NGX_HTTP_IOTHUB_JSON && !ctx->scalar)
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
    u_char            ch;
    size_t            len;
    const ngx_str_t  *json;

    json = &ngx_http_iothub_system[NGX_HTTP_IOTHUB_CONTENTTYPE].value;
    len = json->len;

    if (type->len < len
        || ngx_strncasecmp(type->data, json->data, len) != 0)
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
