
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_format.h"
#include "ngx_http_iothub_text.h"


typedef struct {
    ngx_str_t                   type;
    ngx_http_iothub_format_e    format;
} ngx_http_iothub_media_t;


static ngx_uint_t ngx_http_iothub_is_charset(ngx_str_t *value);
static ngx_http_iothub_format_e ngx_http_iothub_format_of_body(
    ngx_str_t *body);
static ngx_int_t ngx_http_iothub_format_of_type(ngx_str_t *type,
    ngx_http_iothub_format_e *format);
static ngx_int_t ngx_http_iothub_next_parameter(u_char **pos, u_char *last,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_http_iothub_trim_end(ngx_str_t *text);
static ngx_uint_t ngx_http_iothub_same_word(ngx_str_t *one, ngx_str_t *two);


static ngx_http_iothub_media_t  ngx_http_iothub_media[] = {
    { ngx_string("application/json"), NGX_HTTP_IOTHUB_JSON },
    { ngx_string("text/json"), NGX_HTTP_IOTHUB_JSON },
    { ngx_string("application/x-www-form-urlencoded"), NGX_HTTP_IOTHUB_FORM },
    { ngx_null_string, NGX_HTTP_IOTHUB_NO_BODY }
};


static ngx_str_t  ngx_http_iothub_charset = ngx_string("charset");

/* the second is no name of a charset, but used as one */

static ngx_str_t  ngx_http_iothub_charsets[] = {
    ngx_string("utf-8"),
    ngx_string("utf8"),
    ngx_string("us-ascii"),
    ngx_null_string
};


ngx_int_t
ngx_http_iothub_format_of(ngx_str_t *content_type, ngx_str_t *body,
    ngx_http_iothub_format_e *format)
{
    u_char     *p, *last, *end;
    ngx_int_t   rc;
    ngx_str_t   name, value;

    if (content_type == NULL || content_type->len == 0) {
        *format = ngx_http_iothub_format_of_body(body);
        return NGX_OK;
    }

    if (ngx_http_iothub_same(content_type, &ngx_http_iothub_media[0].type)) {

        /* as nearly all write it */

        *format = ngx_http_iothub_media[0].format;
        return NGX_OK;
    }

    last = content_type->data + content_type->len;
    p = ngx_http_iothub_skip_space(content_type->data, last);

    if (p == last) {
        *format = ngx_http_iothub_format_of_body(body);
        return NGX_OK;
    }

    end = ngx_strlchr(p, last, ';');
    if (end == NULL) {
        end = last;
    }

    name.data = p;
    name.len = end - p;

    if (ngx_http_iothub_format_of_type(&name, format) != NGX_OK) {
        return NGX_DECLINED;
    }

    p = end;

    for ( ;; ) {
        rc = ngx_http_iothub_next_parameter(&p, last, &name, &value);

        if (rc != NGX_OK) {
            return rc == NGX_DONE ? NGX_OK : NGX_DECLINED;
        }

        if (ngx_http_iothub_same_word(&name, &ngx_http_iothub_charset)
            && !ngx_http_iothub_is_charset(&value))
        {
            return NGX_DECLINED;
        }
    }
}


static ngx_uint_t
ngx_http_iothub_is_charset(ngx_str_t *value)
{
    ngx_uint_t  i;

    for (i = 0; ngx_http_iothub_charsets[i].len; i++) {
        if (ngx_http_iothub_same_word(value, &ngx_http_iothub_charsets[i])) {
            return 1;
        }
    }

    return 0;
}


static ngx_http_iothub_format_e
ngx_http_iothub_format_of_body(ngx_str_t *body)
{
    u_char  *p, *last;

    if (body->len == 0) {
        return NGX_HTTP_IOTHUB_NO_BODY;
    }

    last = body->data + body->len;
    p = ngx_http_iothub_skip_space(body->data, last);

    if (p < last && (*p == '{' || *p == '[')) {
        return NGX_HTTP_IOTHUB_JSON;
    }

    return NGX_HTTP_IOTHUB_FORM;
}


static ngx_int_t
ngx_http_iothub_format_of_type(ngx_str_t *type,
    ngx_http_iothub_format_e *format)
{
    u_char                   *p, *last, *slash;
    ngx_http_iothub_media_t  *m;

    ngx_http_iothub_trim_end(type);

    p = type->data;
    last = p + type->len;
    slash = ngx_strlchr(p, last, '/');

    if (slash == NULL
        || !ngx_http_iothub_http_token(p, slash)
        || !ngx_http_iothub_http_token(slash + 1, last))
    {
        return NGX_DECLINED;
    }

    for (m = ngx_http_iothub_media; m->type.len; m++) {
        if (ngx_http_iothub_same_word(type, &m->type)) {
            *format = m->format;
            return NGX_OK;
        }
    }

    if (last - slash > 6
        && ngx_strncasecmp(last - 5, (u_char *) "+json", 5) == 0)
    {
        *format = NGX_HTTP_IOTHUB_JSON;
        return NGX_OK;
    }

    return NGX_DECLINED;
}


/*
 * Reads the parameter behind the semicolon at *pos.  A quoted value may hold
 * semicolons; its backslashes are left, as no value looked for has one.
 * NGX_OK, NGX_DONE at the end, NGX_DECLINED if a quoted value is broken.
 */

static ngx_int_t
ngx_http_iothub_next_parameter(u_char **pos, u_char *last, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char  *p;

    if (*pos == last) {
        return NGX_DONE;
    }

    p = ngx_http_iothub_skip_space(*pos + 1, last);

    name->data = p;
    while (p < last && *p != ';' && *p != '=') {
        p++;
    }

    name->len = p - name->data;

    if (p < last && *p == '=') {
        p++;
    }

    value->data = p;

    if (p < last && *p == '"') {

        value->data = ++p;
        while (p < last && *p != '"') {
            p += (*p == '\\' && last - p > 1) ? 2 : 1;
        }

        value->len = p - value->data;

        if (p == last) {
            return NGX_DECLINED;
        }

        p = ngx_http_iothub_skip_space(p + 1, last);
        *pos = p;

        return (p == last || *p == ';') ? NGX_OK : NGX_DECLINED;
    }

    while (p < last && *p != ';') {
        p++;
    }

    value->len = p - value->data;
    ngx_http_iothub_trim_end(value);
    *pos = p;

    return NGX_OK;
}


static void
ngx_http_iothub_trim_end(ngx_str_t *text)
{
    while (text->len
           && (text->data[text->len - 1] == ' '
               || text->data[text->len - 1] == '\t'))
    {
        text->len--;
    }
}


static ngx_uint_t
ngx_http_iothub_same_word(ngx_str_t *one, ngx_str_t *two)
{
    return one->len == two->len
           && ngx_strncasecmp(one->data, two->data, one->len) == 0;
}
