
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_answer.h"
#include "ngx_http_iothub_webhook.h"


#define NGX_HTTP_IOTHUB_UNPROCESSABLE    422

/* seconds */

#define NGX_HTTP_IOTHUB_RETRY_AFTER      10
#define NGX_HTTP_IOTHUB_RETRY_AFTER_MAX  300


static ngx_uint_t ngx_http_iothub_answer_status(
    ngx_http_iothub_loc_conf_t *conf, const ngx_http_iothub_result_t *result);
static ngx_int_t ngx_http_iothub_answer_text(ngx_http_request_t *r,
    const ngx_http_iothub_result_t *result, ngx_uint_t status,
    const char *detail, ngx_str_t *text);
static ngx_int_t ngx_http_iothub_answer_retry_after(ngx_http_request_t *r,
    ngx_uint_t seconds);
static ngx_int_t ngx_http_iothub_answer_header(ngx_http_request_t *r,
    const char *name, ngx_str_t *value);


ngx_int_t
ngx_http_iothub_answer(ngx_http_request_t *r,
    ngx_http_iothub_loc_conf_t *conf, ngx_http_iothub_result_e result,
    const char *detail, ngx_uint_t retry_after)
{
    ngx_int_t                        rc;
    ngx_str_t                        type;
    ngx_uint_t                       status;
    ngx_http_complex_value_t         cv;
    const ngx_http_iothub_result_t  *row;

    row = &ngx_http_iothub_results[result];
    status = ngx_http_iothub_answer_status(conf, row);

    ngx_str_null(&type);
    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    if (status >= NGX_HTTP_SPECIAL_RESPONSE) {

        ngx_str_set(&type, "application/problem+json");

        if (ngx_http_iothub_answer_text(r, row, status, detail, &cv.value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (result == NGX_HTTP_IOTHUB_BAD_METHOD
        && ngx_http_iothub_answer_header(r, "Allow", &conf->source->allow)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (row->retry_after
        && ngx_http_iothub_answer_retry_after(r, retry_after) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (status == NGX_HTTP_IOTHUB_UNPROCESSABLE) {

        /* nginx has no reason phrase for it */

        ngx_str_set(&r->headers_out.status_line,
                    "422 Unprocessable Content");
    }

    /*
     * The status is this one, whatever led here: neither that of an
     * error_page nor a 412 for the sender's If-Match in place of a 200.
     */

    r->err_status = 0;
    r->disable_not_modified = 1;

    rc = ngx_http_send_response(r, status, &type, &cv);

    /* a status here would be looked up in error_page */

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? NGX_ERROR : rc;
}


/* who sends is told what nginx allows: as much as they like */

ngx_int_t
ngx_http_iothub_answer_handshake(ngx_http_request_t *r, ngx_str_t *origin)
{
    ngx_int_t                 rc;
    ngx_str_t                 value;
    ngx_http_complex_value_t  cv;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_str_set(&value, "POST");

    if (ngx_http_iothub_answer_header(r, "Allow", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (origin && origin->len) {
        ngx_str_set(&value, "*");

        if (ngx_http_iothub_answer_header(r, "WebHook-Allowed-Origin", origin)
            != NGX_OK
            || ngx_http_iothub_answer_header(r, "WebHook-Allowed-Rate",
                                             &value)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_str_null(&value);
    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    r->err_status = 0;
    r->disable_not_modified = 1;

    rc = ngx_http_send_response(r, NGX_HTTP_OK, &value, &cv);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? NGX_ERROR : rc;
}


ngx_int_t
ngx_http_iothub_answer_validation(ngx_http_request_t *r, ngx_str_t *code)
{
    u_char                    *p;
    ngx_int_t                  rc;
    ngx_str_t                  type;
    ngx_http_complex_value_t   cv;

    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    p = ngx_pnalloc(r->pool, sizeof("{\"validationResponse\":}") + code->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    cv.value.data = p;
    cv.value.len = ngx_sprintf(p, "{\"validationResponse\":%V}", code) - p;

    ngx_str_set(&type, "application/json");

    r->err_status = 0;
    r->disable_not_modified = 1;

    rc = ngx_http_send_response(r, NGX_HTTP_OK, &type, &cv);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? NGX_ERROR : rc;
}


static ngx_uint_t
ngx_http_iothub_answer_status(ngx_http_iothub_loc_conf_t *conf,
    const ngx_http_iothub_result_t *result)
{
    if (result->success) {
        return conf->accepted;
    }

    if (result->rejectable && conf->rejected) {
        return conf->rejected;
    }

    if (result->rejectable && conf->source->rejected) {
        return conf->source->rejected;
    }

    return result->status;
}


static ngx_int_t
ngx_http_iothub_answer_text(ngx_http_request_t *r,
    const ngx_http_iothub_result_t *result, ngx_uint_t status,
    const char *detail, ngx_str_t *text)
{
    u_char     *p;
    ngx_str_t   s, title, code;

    s.data = (u_char *) (detail ? detail : "");
    s.len = ngx_strlen(s.data);
    title = result->title;
    code = result->word;

    p = ngx_pnalloc(r->pool, sizeof("{\"title\":\"\",\"status\":,\"code\":"
                                    "\"\",\"detail\":\"\"}\n")
                             + title.len + NGX_INT_T_LEN + code.len
                             + ngx_http_iothub_json_escape(NULL, &s));
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    p = ngx_sprintf(p, "{\"title\":\"%V\",\"status\":%ui,\"code\":\"%V\","
                    "\"detail\":\"", &title, status, &code);
    p += ngx_http_iothub_json_escape(p, &s);
    p = ngx_cpymem(p, "\"}\n", sizeof("\"}\n") - 1);

    text->len = p - text->data;

    return NGX_OK;
}


/* 0: it is not known when to come again */

static ngx_int_t
ngx_http_iothub_answer_retry_after(ngx_http_request_t *r, ngx_uint_t seconds)
{
    ngx_str_t  value;

    if (seconds == 0) {
        seconds = NGX_HTTP_IOTHUB_RETRY_AFTER;
    }

    seconds = ngx_min(seconds, NGX_HTTP_IOTHUB_RETRY_AFTER_MAX);

    value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%ui", seconds) - value.data;

    return ngx_http_iothub_answer_header(r, "Retry-After", &value);
}


static ngx_int_t
ngx_http_iothub_answer_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}
