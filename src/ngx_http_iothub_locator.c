
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_locator.h"
#include "ngx_http_iothub_text.h"


typedef struct {
    ngx_str_t                   prefix;
    ngx_http_iothub_locator_e   kind;
} ngx_http_iothub_locator_prefix_t;


static ngx_int_t ngx_http_iothub_locator_pointer(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_iothub_locator_t *locator, const char **reason);
static ngx_int_t ngx_http_iothub_locator_step(ngx_pool_t *pool,
    ngx_http_iothub_step_t *step);
static ngx_int_t ngx_http_iothub_locator_index(ngx_str_t *name);


static ngx_http_iothub_locator_prefix_t  ngx_http_iothub_prefixes[] = {
    { ngx_string("json:"), NGX_HTTP_IOTHUB_LOCATOR_JSON },
    { ngx_string("form:"), NGX_HTTP_IOTHUB_LOCATOR_FORM },
    { ngx_string("query:"), NGX_HTTP_IOTHUB_LOCATOR_QUERY },
    { ngx_string("header:"), NGX_HTTP_IOTHUB_LOCATOR_HEADER },
    { ngx_null_string, NGX_HTTP_IOTHUB_LOCATOR_NAME }
};


ngx_int_t
ngx_http_iothub_locator_read(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason)
{
    ngx_str_t                          name;
    ngx_http_iothub_locator_prefix_t  *p;

    ngx_memzero(locator, sizeof(ngx_http_iothub_locator_t));

    if (text->len == 4 && ngx_strncmp(text->data, "body", 4) == 0) {
        locator->kind = NGX_HTTP_IOTHUB_LOCATOR_BODY;
        return NGX_OK;
    }

    if (text->len && text->data[0] == '/') {
        return ngx_http_iothub_locator_pointer(pool, text, locator, reason);
    }

    name = *text;

    for (p = ngx_http_iothub_prefixes; p->prefix.len; p++) {

        if (text->len >= p->prefix.len
            && ngx_strncmp(text->data, p->prefix.data, p->prefix.len) == 0)
        {
            name.data += p->prefix.len;
            name.len -= p->prefix.len;
            break;
        }
    }

    locator->kind = p->kind;
    locator->name = name;

    if (p->kind == NGX_HTTP_IOTHUB_LOCATOR_JSON) {
        return ngx_http_iothub_locator_pointer(pool, &name, locator, reason);
    }

    if (name.len == 0) {
        *reason = "the name is empty";
        return NGX_DECLINED;
    }

    if (p->kind == NGX_HTTP_IOTHUB_LOCATOR_HEADER
        && !ngx_http_iothub_http_token(name.data, name.data + name.len))
    {
        *reason = "no header can have this name";
        return NGX_DECLINED;
    }

    if (p->kind != NGX_HTTP_IOTHUB_LOCATOR_NAME) {
        return NGX_OK;
    }

    if (ngx_strlchr(name.data, name.data + name.len, ':') != NULL) {
        *reason = "it has to be json:/pointer, form:name, query:name, "
                  "header:name, body, /pointer, or a name without a colon";
        return NGX_DECLINED;
    }

    if (ngx_strlchr(name.data, name.data + name.len, '/') != NULL) {
        *reason = "a pointer has to start with \"/\"; a name that holds one "
                  "is written \"json:/a~1b\", \"form:a/b\" or \"query:a/b\"";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_locator_pointer(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason)
{
    u_char                  *p, *last;
    ngx_int_t                rc;
    ngx_uint_t               n;
    ngx_http_iothub_step_t  *step;

    locator->kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;
    ngx_str_null(&locator->name);

    if (text->len == 0) {
        return NGX_OK;
    }

    if (text->data[0] != '/') {
        *reason = "a pointer has to start with \"/\"";
        return NGX_DECLINED;
    }

    last = text->data + text->len;
    n = 0;

    for (p = text->data; p < last; p++) {
        n += (*p == '/');
    }

    step = ngx_pcalloc(pool, n * sizeof(ngx_http_iothub_step_t));
    if (step == NULL) {
        return NGX_ERROR;
    }

    locator->steps = step;
    locator->nsteps = n;

    for (p = text->data; p < last; step++) {

        step->name.data = ++p;
        while (p < last && *p != '/') {
            p++;
        }

        step->name.len = p - step->name.data;

        rc = ngx_http_iothub_locator_step(pool, step);

        if (rc == NGX_DECLINED) {
            *reason = "\"~\" in a pointer has to be written \"~0\", and "
                      "\"/\" in a name \"~1\"";
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_locator_step(ngx_pool_t *pool, ngx_http_iothub_step_t *step)
{
    u_char  *src, *dst, *last;

    src = step->name.data;
    last = src + step->name.len;

    if (ngx_strlchr(src, last, '~') != NULL) {

        dst = ngx_pnalloc(pool, step->name.len);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        step->name.data = dst;

        for ( /* void */ ; src < last; src++) {

            if (*src != '~') {
                *dst++ = *src;
                continue;
            }

            src++;

            if (src == last || (*src != '0' && *src != '1')) {
                return NGX_DECLINED;
            }

            *dst++ = *src == '0' ? '~' : '/';
        }

        step->name.len = dst - step->name.data;
    }

    step->index = ngx_http_iothub_locator_index(&step->name);

    return NGX_OK;
}


/* digits without leading zeros, RFC 6901, 4; never "-", which is no element */

static ngx_int_t
ngx_http_iothub_locator_index(ngx_str_t *name)
{
    if (name->len > 1 && name->data[0] == '0') {
        return -1;
    }

    /* NGX_ERROR, which is -1, if it is no number or too large */

    return ngx_atoi(name->data, name->len);
}
