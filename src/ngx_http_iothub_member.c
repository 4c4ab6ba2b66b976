
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_member.h"
#include "ngx_http_iothub_text.h"


static u_char *ngx_http_iothub_skip_string(u_char *p, u_char *last,
    ngx_uint_t *escaped);
static u_char *ngx_http_iothub_skip_container(u_char *p, u_char *last);


ngx_int_t
ngx_http_iothub_next_member(u_char **pos, u_char *last, ngx_uint_t object,
    ngx_http_iothub_member_t *member)
{
    u_char  *p;

    p = ngx_http_iothub_skip_space(*pos, last);

    if (p < last && *p == ',') {
        p = ngx_http_iothub_skip_space(p + 1, last);
    }

    if (p == last) {
        return NGX_ERROR;
    }

    if (*p == '}' || *p == ']') {
        *pos = p + 1;
        return NGX_DONE;
    }

    ngx_memzero(member, sizeof(ngx_http_iothub_member_t));

    if (object) {
        if (*p++ != '"') {
            return NGX_ERROR;
        }

        member->name.data = p;

        p = ngx_http_iothub_skip_string(p, last, &member->name_escaped);
        if (p == NULL) {
            return NGX_ERROR;
        }

        member->name.len = p - 1 - member->name.data;

        p = ngx_http_iothub_skip_space(p, last);
        if (p == last || *p != ':') {
            return NGX_ERROR;
        }

        p = ngx_http_iothub_skip_space(p + 1, last);
        if (p == last) {
            return NGX_ERROR;
        }
    }

    member->value.data = p;

    p = ngx_http_iothub_skip_value(p, last, &member->value_escaped);
    if (p == NULL || p == member->value.data) {
        return NGX_ERROR;
    }

    member->value.len = p - member->value.data;
    *pos = p;

    return NGX_OK;
}


ngx_uint_t
ngx_http_iothub_member_is(ngx_http_iothub_member_t *member, ngx_str_t *name)
{
    u_char  *p, *last, *n, *end, buf[4];
    size_t   len;

    if (!member->name_escaped) {
        return ngx_http_iothub_same(&member->name, name);
    }

    p = member->name.data;
    last = p + member->name.len;
    n = name->data;
    end = n + name->len;

    while (p < last) {

        if (*p == '\\') {
            len = ngx_http_iothub_unescape_json(&p, last, buf);

        } else {
            buf[0] = *p++;
            len = 1;
        }

        if (len == 0
            || (size_t) (end - n) < len
            || ngx_memcmp(n, buf, len) != 0)
        {
            return 0;
        }

        n += len;
    }

    return n == end;
}


u_char *
ngx_http_iothub_skip_value(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    *escaped = 0;

    switch (*p) {

    case '"':
        return ngx_http_iothub_skip_string(p + 1, last, escaped);

    case '{':
    case '[':
        return ngx_http_iothub_skip_container(p, last);

    default:

        /* a number, true, false or null */

        while (p < last
               && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z')
                   || *p == '-' || *p == '+' || *p == '.' || *p == 'E'))
        {
            p++;
        }

        return p;
    }
}


/* from behind the opening quote to behind the closing one, or NULL */

static u_char *
ngx_http_iothub_skip_string(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    u_char  *quote, *backslash;

    quote = NULL;
    *escaped = 0;

    for ( ;; ) {

        if (quote == NULL) {
            quote = memchr(p, '"', last - p);
            if (quote == NULL) {
                return NULL;
            }
        }

        backslash = memchr(p, '\\', quote - p);
        if (backslash == NULL) {
            return quote + 1;
        }

        *escaped = 1;

        /*
         * an escaped quote is not the end; any other quote stays the next
         * one and is not looked for again, or many backslashes would make
         * this quadratic
         */

        p = backslash + 2;

        if (p > quote) {
            quote = NULL;
        }
    }
}


/* iterative: how deep it goes costs no stack */

static u_char *
ngx_http_iothub_skip_container(u_char *p, u_char *last)
{
    ngx_uint_t  depth, escaped;

    depth = 0;

    while (p < last) {

        switch (*p++) {

        case '"':
            p = ngx_http_iothub_skip_string(p, last, &escaped);
            if (p == NULL) {
                return NULL;
            }

            break;

        case '{':
        case '[':
            depth++;
            break;

        case '}':
        case ']':
            if (--depth == 0) {
                return p;
            }

            break;
        }
    }

    return NULL;
}
