
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_form.h"
#include "ngx_http_iothub_text.h"


static ngx_int_t ngx_http_iothub_unescape_byte(u_char **pos, u_char *last);
static int ngx_libc_cdecl ngx_http_iothub_cmp_pairs(const void *one,
    const void *two);


ngx_int_t
ngx_http_iothub_next_pair(u_char **pos, u_char *last,
    ngx_http_iothub_pair_t *pair)
{
    u_char  *p, *end, *equals;

    p = *pos;

    while (p < last && *p == '&') {
        p++;
    }

    if (p == last) {
        return NGX_DONE;
    }

    end = memchr(p, '&', last - p);
    if (end == NULL) {
        end = last;
    }

    equals = memchr(p, '=', end - p);
    if (equals == NULL) {
        equals = end;
    }

    pair->name.data = p;
    pair->name.len = equals - p;

    pair->value.data = equals < end ? equals + 1 : end;
    pair->value.len = end - pair->value.data;

    *pos = end;

    return NGX_OK;
}


ngx_uint_t
ngx_http_iothub_pair_is(ngx_str_t *raw, ngx_str_t *name)
{
    u_char     *p, *last;
    size_t      n;
    ngx_int_t   c;

    p = raw->data;
    last = p + raw->len;

    for (n = 0; p < last; n++) {
        c = ngx_http_iothub_unescape_byte(&p, last);

        if (n == name->len || c != name->data[n]) {
            return 0;
        }
    }

    return n == name->len;
}


ngx_int_t
ngx_http_iothub_unescape_pair(ngx_pool_t *pool, ngx_str_t *raw,
    ngx_str_t *text, const char **reason)
{
    u_char     *p, *last, *dst;
    ngx_int_t   c;

    *text = *raw;

    p = raw->data;
    last = p + raw->len;

    while (p < last && *p != '%' && *p != '+') {
        p++;
    }

    if (p < last) {
        dst = ngx_pnalloc(pool, raw->len);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        text->data = dst;
        p = raw->data;

        while (p < last) {
            c = ngx_http_iothub_unescape_byte(&p, last);

            if (c == NGX_ERROR) {
                *reason = "bad percent escape";
                return NGX_DECLINED;
            }

            *dst++ = (u_char) c;
        }

        text->len = dst - text->data;
    }

    if (text->len && memchr(text->data, '\0', text->len) != NULL) {
        *reason = "NUL character";
        return NGX_DECLINED;
    }

    if (!ngx_http_iothub_utf8(text)) {
        *reason = "bad UTF-8";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_unescape_byte(u_char **pos, u_char *last)
{
    u_char     *p;
    ngx_int_t   c;

    p = *pos;
    *pos = p + 1;

    switch (*p) {

    case '+':
        return ' ';

    case '%':
        if (last - p < 3) {
            return NGX_ERROR;
        }

        c = ngx_hextoi(p + 1, 2);
        if (c != NGX_ERROR) {
            *pos = p + 3;
        }

        return c;

    default:
        return *p;
    }
}


ngx_uint_t
ngx_http_iothub_form_duplicates(ngx_http_iothub_pair_t *pairs, ngx_uint_t n)
{
    ngx_uint_t               i;
    ngx_http_iothub_pair_t  *sorted[NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS];

    for (i = 0; i < n; i++) {
        sorted[i] = &pairs[i];
    }

    ngx_qsort(sorted, n, sizeof(ngx_http_iothub_pair_t *),
              ngx_http_iothub_cmp_pairs);

    for (i = 1; i < n; i++) {
        if (ngx_http_iothub_cmp_pairs(&sorted[i - 1], &sorted[i]) == 0) {
            return 1;
        }
    }

    return 0;
}


static int ngx_libc_cdecl
ngx_http_iothub_cmp_pairs(const void *one, const void *two)
{
    ngx_http_iothub_pair_t  *a, *b;

    a = *(ngx_http_iothub_pair_t **) one;
    b = *(ngx_http_iothub_pair_t **) two;

    if (a->name.len != b->name.len) {
        return a->name.len < b->name.len ? -1 : 1;
    }

    return a->name.len ? ngx_memcmp(a->name.data, b->name.data, a->name.len)
                       : 0;
}
