
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_variables.h"
#include "ngx_http_iothub_handler.h"


static ngx_int_t ngx_http_iothub_variable_field(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_early(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_uint_t field);
static ngx_int_t ngx_http_iothub_variable_source(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_iothub_source_t *source,
    ngx_uint_t field);
static ngx_int_t ngx_http_iothub_variable_data(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_message(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_text(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_result(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_string(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_statuses(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_tries(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_time(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_iothub_variable_verbatim(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_iothub_ctx_t *ctx,
    ngx_str_t *value);


static ngx_http_variable_t  ngx_http_iothub_variables[] = {

    { ngx_string("iothub_device_id"), NULL, ngx_http_iothub_variable_field,
      NGX_HTTP_IOTHUB_DEVICE_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_event"), NULL, ngx_http_iothub_variable_field,
      NGX_HTTP_IOTHUB_EVENT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_published_at"), NULL, ngx_http_iothub_variable_field,
      NGX_HTTP_IOTHUB_PUBLISHED_AT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_message_id"), NULL, ngx_http_iothub_variable_field,
      NGX_HTTP_IOTHUB_MESSAGE_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_data"), NULL, ngx_http_iothub_variable_data,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_body"), NULL, ngx_http_iothub_variable_text,
      offsetof(ngx_http_iothub_ctx_t, webhook.body),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_message"), NULL, ngx_http_iothub_variable_message,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_hub"), NULL, ngx_http_iothub_variable_text,
      offsetof(ngx_http_iothub_ctx_t, hub), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_hub_error"), NULL, ngx_http_iothub_variable_text,
      offsetof(ngx_http_iothub_ctx_t, delivery.hub_error),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_hub_request_id"), NULL,
      ngx_http_iothub_variable_text,
      offsetof(ngx_http_iothub_ctx_t, delivery.hub_request_id),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_result"), NULL, ngx_http_iothub_variable_result,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_detail"), NULL, ngx_http_iothub_variable_string,
      offsetof(ngx_http_iothub_ctx_t, detail), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_identity"), NULL, ngx_http_iothub_variable_string,
      offsetof(ngx_http_iothub_ctx_t, delivery.identity),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_hub_status"), NULL,
      ngx_http_iothub_variable_statuses, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_tries"), NULL, ngx_http_iothub_variable_tries,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("iothub_delivery_time"), NULL,
      ngx_http_iothub_variable_time, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_iothub_variables_add(ngx_conf_t *cf)
{
    ngx_http_variable_t          *v, *var;
    ngx_http_iothub_main_conf_t  *imcf;

    static ngx_str_t  request_id = ngx_string("request_id");

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);

    for (v = ngx_http_iothub_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    imcf->request_id = ngx_http_get_variable_index(cf, &request_id);

    return (imcf->request_id == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


ngx_int_t
ngx_http_iothub_variables_init(ngx_conf_t *cf)
{
    ngx_int_t                    *index;
    ngx_uint_t                    i;
    ngx_http_variable_t          *v, *used;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_iothub_module);
    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    used = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {

        for (v = ngx_http_iothub_variables; v->name.len; v++) {

            if (used[i].name.len != v->name.len
                || ngx_strncmp(used[i].name.data, v->name.data, v->name.len)
                   != 0)
            {
                continue;
            }

            index = ngx_array_push(&imcf->variables);
            if (index == NULL) {
                return NGX_ERROR;
            }

            *index = i;
            break;
        }
    }

    return NGX_OK;
}


ngx_http_variable_value_t *
ngx_http_iothub_variables_save(ngx_http_request_t *r)
{
    size_t                      size;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_variable_value_t  *saved;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    size = cmcf->variables.nelts * sizeof(ngx_http_variable_value_t);

    saved = ngx_palloc(r->pool, size);

    if (saved) {
        ngx_memcpy(saved, r->variables, size);
    }

    return saved;
}


void
ngx_http_iothub_variables_restore(ngx_http_request_t *r,
    ngx_http_variable_value_t *saved)
{
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    ngx_memcpy(r->variables, saved,
               cmcf->variables.nelts * sizeof(ngx_http_variable_value_t));
}


void
ngx_http_iothub_variables_escape(ngx_http_request_t *r,
    ngx_http_variable_value_t *saved)
{
    ngx_str_t                   value;
    ngx_uint_t                  i;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_variable_value_t  *v;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    v = r->variables;

    for (i = 0; i < cmcf->variables.nelts; i++) {

        if (!v[i].valid || v[i].not_found || v[i].data == saved[i].data) {
            continue;
        }

        value.data = v[i].data;
        value.len = v[i].len;

        if (ngx_http_iothub_event_has_controls(&value)) {
            v[i] = saved[i];
        }
    }
}


void
ngx_http_iothub_variables_reset(ngx_http_request_t *r)
{
    ngx_int_t                    *index;
    ngx_uint_t                    i;
    ngx_http_iothub_main_conf_t  *imcf;

    imcf = ngx_http_get_module_main_conf(r, ngx_http_iothub_module);
    index = imcf->variables.elts;

    for (i = 0; i < imcf->variables.nelts; i++) {
        r->variables[index[i]].valid = 0;
        r->variables[index[i]].not_found = 0;
    }
}


static ngx_int_t
ngx_http_iothub_variable_field(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t              *value;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL || !ctx->parsed) {
        return ngx_http_iothub_variable_early(r, v, data);
    }

    switch (data) {

    case NGX_HTTP_IOTHUB_DEVICE_ID:
        value = &ctx->event.device_id;
        break;

    case NGX_HTTP_IOTHUB_EVENT:
        value = &ctx->event.name;
        break;

    case NGX_HTTP_IOTHUB_PUBLISHED_AT:
        value = &ctx->event.published_at;
        break;

    default: /* NGX_HTTP_IOTHUB_MESSAGE_ID */
        value = &ctx->event.message_id;
        break;
    }

    return ngx_http_iothub_variables_set_safe(r, v, value);
}


/* before the body was read, query and headers are known */

static ngx_int_t
ngx_http_iothub_variable_early(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_uint_t field)
{
    ngx_str_t                    text;
    ngx_http_variable_value_t   *saved;
    ngx_http_iothub_loc_conf_t  *conf;

    v->not_found = 1;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_iothub_module);

    if (conf->source == NULL) {
        return NGX_OK;
    }

    if (ngx_http_iothub_variable_source(r, v, conf->source, field)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->fields[field] == NULL) {
        return NGX_OK;
    }

    saved = ngx_http_iothub_variables_save(r);
    if (saved == NULL) {
        return NGX_ERROR;
    }

    /* where an override holds its own variable, that is the source's */

    v->no_cacheable = 0;

    if (ngx_http_complex_value(r, conf->fields[field], &text) != NGX_OK) {
        return NGX_ERROR;
    }

    /* what a "map" made of it without the body must not be remembered */

    ngx_http_iothub_variables_restore(r, saved);

    if (text.len == 0) {
        v->valid = 0;
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_iothub_variables_set_safe(r, v, &text);
}


static ngx_int_t
ngx_http_iothub_variable_source(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_iothub_source_t *source,
    ngx_uint_t field)
{
    ngx_int_t                  rc;
    ngx_str_t                  body;
    ngx_http_iothub_value_t    value;
    ngx_http_iothub_webhook_t  wh;

    ngx_str_null(&body);

    if (ngx_http_iothub_webhook_parse(r->pool, &wh, NGX_HTTP_IOTHUB_NO_BODY,
                                      &body, &r->args)
        != NGX_OK)
    {
        return NGX_OK;
    }

    wh.header = ngx_http_iothub_header_in;
    wh.header_data = r;

    rc = ngx_http_iothub_source_find(source, field, &wh, &value);

    if (rc != NGX_OK) {
        return rc == NGX_ERROR ? NGX_ERROR : NGX_OK;
    }

    if (ngx_http_iothub_webhook_text(r->pool, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_iothub_variables_set_safe(r, v, &value.text);
}


ngx_int_t
ngx_http_iothub_variables_set_safe(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *value)
{
    ngx_str_t  text;

    if (!ngx_http_iothub_event_has_controls(value)) {
        return ngx_http_iothub_variables_set(v, value);
    }

    text.data = ngx_pnalloc(r->pool,
                            ngx_http_iothub_json_escape(NULL, value));
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    text.len = ngx_http_iothub_json_escape(text.data, value);

    return ngx_http_iothub_variables_set(v, &text);
}


static ngx_int_t
ngx_http_iothub_variable_data(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL || !ctx->event.has_data) {
        v->not_found = 1;
        return NGX_OK;
    }

    if (ngx_http_iothub_webhook_text(r->pool, &ctx->event.data) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_iothub_variable_verbatim(r, v, ctx,
                                             &ctx->event.data.text);
}


static ngx_int_t
ngx_http_iothub_variable_text(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_iothub_variable_verbatim(r, v, ctx,
                                        (ngx_str_t *) ((u_char *) ctx + data));
}


static ngx_int_t
ngx_http_iothub_variable_message(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               text;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    if (ngx_http_iothub_message_whole(r->pool, &ctx->delivery.message, &text)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_iothub_variable_verbatim(r, v, ctx, &text);
}


/*
 * For the module's directives and the log.  What answers, we or a target,
 * could make a header of it: there it is escaped.  A request that is being
 * logged has no references.
 */

static ngx_int_t
ngx_http_iothub_variable_verbatim(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_iothub_ctx_t *ctx,
    ngx_str_t *value)
{
    if (ctx->answered && r->main->count && value->data) {
        return ngx_http_iothub_variables_set_safe(r, v, value);
    }

    return ngx_http_iothub_variables_set(v, value);
}


static ngx_int_t
ngx_http_iothub_variable_result(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                  word;
    ngx_http_iothub_ctx_t     *ctx;
    ngx_http_iothub_result_e   result;

    ctx = ngx_http_iothub_find_ctx(r);

    result = ctx ? ngx_http_iothub_outcome(ctx) : NGX_HTTP_IOTHUB_NO_RESULT;

    if (result == NGX_HTTP_IOTHUB_NO_RESULT) {
        v->not_found = 1;
        return NGX_OK;
    }

    word = ngx_http_iothub_results[result].word;

    return ngx_http_iothub_variables_set(v, &word);
}


static ngx_int_t
ngx_http_iothub_variable_string(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    char                  **s;
    ngx_str_t               value;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (char **) ((u_char *) ctx + data);

    if (*s == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    value.data = (u_char *) *s;
    value.len = ngx_strlen(*s);

    return ngx_http_iothub_variables_set(v, &value);
}


/* as in $upstream_status, but "-" for a call without an answer */

static ngx_int_t
ngx_http_iothub_variable_statuses(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                      *p;
    ngx_str_t                    value;
    ngx_uint_t                   i, n;
    ngx_http_iothub_ctx_t       *ctx;
    ngx_http_iothub_delivery_t  *d;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL || ctx->delivery.calls == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    d = &ctx->delivery;
    n = ngx_min(d->calls, NGX_HTTP_IOTHUB_DELIVERY_STATUSES);

    p = ngx_pnalloc(r->pool, n * (NGX_INT_T_LEN + 2));
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = ',';
            *p++ = ' ';
        }

        if (d->statuses[i]) {
            p = ngx_sprintf(p, "%ui", (ngx_uint_t) d->statuses[i]);
        } else {
            *p++ = '-';
        }
    }

    value.len = p - value.data;

    return ngx_http_iothub_variables_set(v, &value);
}


static ngx_int_t
ngx_http_iothub_variable_tries(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               value;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%ui", ctx->delivery.tries)
                - value.data;

    return ngx_http_iothub_variables_set(v, &value);
}


static ngx_int_t
ngx_http_iothub_variable_time(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_msec_t              ms;
    ngx_str_t               value;
    ngx_http_iothub_ctx_t  *ctx;

    ctx = ngx_http_iothub_find_ctx(r);

    if (ctx == NULL || ctx->delivery.ended == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    ms = ctx->delivery.ended - ctx->delivery.started;

    value.data = ngx_pnalloc(r->pool, NGX_TIME_T_LEN + 4);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%T.%03M", (time_t) ms / 1000,
                            ms % 1000)
                - value.data;

    return ngx_http_iothub_variables_set(v, &value);
}


ngx_int_t
ngx_http_iothub_variables_set(ngx_http_variable_value_t *v, ngx_str_t *value)
{
    if (value->data == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = value->data;
    v->len = value->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
