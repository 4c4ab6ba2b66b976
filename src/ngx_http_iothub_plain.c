
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_plain.h"


/* no number of so many characters, without an exponent, is infinite */
#define NGX_HTTP_IOTHUB_PLAIN_NUMBER  32


static u_char *ngx_http_iothub_plain_space(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_name(u_char *p, u_char *last,
    ngx_str_t *names, ngx_uint_t n);
static u_char *ngx_http_iothub_plain_value(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_string(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_number(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_digits(u_char *p, u_char *last);


ngx_uint_t
ngx_http_iothub_plain_json(ngx_str_t *text)
{
    u_char      *p, *last;
    ngx_str_t    names[NGX_HTTP_IOTHUB_PLAIN_MEMBERS];
    ngx_uint_t   n;

    last = text->data + text->len;
    p = ngx_http_iothub_plain_space(text->data, last);

    if (p == last || *p++ != '{') {
        return 0;
    }

    for (n = 0; n < NGX_HTTP_IOTHUB_PLAIN_MEMBERS; n++) {

        p = ngx_http_iothub_plain_name(p, last, names, n);
        if (p == NULL) {
            return 0;
        }

        p = ngx_http_iothub_plain_value(p, last);
        if (p == NULL) {
            return 0;
        }

        p = ngx_http_iothub_plain_space(p, last);
        if (p == last) {
            return 0;
        }

        if (*p == '}') {
            return ngx_http_iothub_plain_space(p + 1, last) == last;
        }

        if (*p++ != ',') {
            return 0;
        }
    }

    return 0;
}


static u_char *
ngx_http_iothub_plain_space(u_char *p, u_char *last)
{
    while (p < last && (*p == ' ' || *p == LF || *p == CR || *p == '\t')) {
        p++;
    }

    return p;
}


/* a name that none of the n before it is; what follows its colon, or NULL */

static u_char *
ngx_http_iothub_plain_name(u_char *p, u_char *last, ngx_str_t *names,
    ngx_uint_t n)
{
    u_char      *end;
    ngx_str_t   *name;
    ngx_uint_t   i;

    p = ngx_http_iothub_plain_space(p, last);

    if (p == last || *p++ != '"') {
        return NULL;
    }

    end = ngx_http_iothub_plain_string(p, last);
    if (end == NULL) {
        return NULL;
    }

    name = &names[n];
    name->data = p;
    name->len = end - 1 - p;

    /* escapes are other ways to write a name */

    if (ngx_strlchr(p, end, '\\')) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        if (names[i].len == name->len
            && ngx_memcmp(names[i].data, name->data, name->len) == 0)
        {
            return NULL;
        }
    }

    p = ngx_http_iothub_plain_space(end, last);

    return (p < last && *p == ':') ? p + 1 : NULL;
}


/* what follows the value, or NULL */

static u_char *
ngx_http_iothub_plain_value(u_char *p, u_char *last)
{
    ngx_uint_t  i;

    static ngx_str_t  words[] = {
        ngx_string("true"), ngx_string("false"), ngx_string("null")
    };

    p = ngx_http_iothub_plain_space(p, last);

    if (p == last) {
        return NULL;
    }

    if (*p == '"') {
        return ngx_http_iothub_plain_string(p + 1, last);
    }

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((size_t) (last - p) >= words[i].len
            && ngx_memcmp(p, words[i].data, words[i].len) == 0)
        {
            return p + words[i].len;
        }
    }

    return ngx_http_iothub_plain_number(p, last);
}


static u_char *
ngx_http_iothub_plain_string(u_char *p, u_char *last)
{
    while (p < last) {

        if (*p == '"') {
            return p + 1;
        }

        if (*p < ' ' || *p > '~') {
            return NULL;
        }

        if (*p++ == '\\') {

            if (p == last || *p == '\0'
                || ngx_strchr("\"\\/bfnrt", *p) == NULL)
            {
                return NULL;
            }

            p++;
        }
    }

    return NULL;
}


static u_char *
ngx_http_iothub_plain_number(u_char *p, u_char *last)
{
    u_char  *start;

    last = p + ngx_min(last - p, NGX_HTTP_IOTHUB_PLAIN_NUMBER);

    if (p < last && *p == '-') {
        p++;
    }

    start = p;
    p = ngx_http_iothub_plain_digits(p, last);

    if (p == start || (*start == '0' && p - start > 1)) {
        return NULL;
    }

    if (p < last && *p == '.') {
        start = ++p;
        p = ngx_http_iothub_plain_digits(p, last);

        if (p == start) {
            return NULL;
        }
    }

    /* what could go on with the number is not looked at here */

    return (p < last && *p != 'e' && *p != 'E') ? p : NULL;
}


static u_char *
ngx_http_iothub_plain_digits(u_char *p, u_char *last)
{
    while (p < last && *p >= '0' && *p <= '9') {
        p++;
    }

    return p;
}
