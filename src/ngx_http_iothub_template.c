
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_template.h"
#include "ngx_http_iothub_webhook.h"


typedef enum {
    NGX_HTTP_IOTHUB_AS_IS = 0,
    NGX_HTTP_IOTHUB_IN_STRING,
    NGX_HTTP_IOTHUB_AS_JSON
} ngx_http_iothub_insert_e;


typedef struct {
    ngx_str_t                  literal;
    ngx_http_complex_value_t  *variable;    /* NULL: a literal */
    ngx_http_iothub_insert_e   insert;
} ngx_http_iothub_part_t;


static size_t ngx_http_iothub_template_name(ngx_str_t *text, size_t i);
static size_t ngx_http_iothub_template_literal(ngx_str_t *text, size_t i,
    ngx_uint_t *in_string);
static ngx_int_t ngx_http_iothub_template_part(ngx_conf_t *cf,
    ngx_http_iothub_template_t *template, ngx_str_t *text, size_t from,
    size_t to, ngx_uint_t variable, ngx_http_iothub_insert_e insert);
static ngx_int_t ngx_http_iothub_template_sample(ngx_pool_t *pool,
    ngx_http_iothub_template_t *template, ngx_uint_t quoted, ngx_str_t *text);
static ngx_int_t ngx_http_iothub_template_insert(ngx_http_request_t *r,
    ngx_http_iothub_part_t *part, ngx_str_t *text);
static ngx_int_t ngx_http_iothub_template_escape(ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t quoted);


ngx_http_iothub_template_t *
ngx_http_iothub_template_compile(ngx_conf_t *cf, ngx_str_t *text,
    ngx_uint_t escape)
{
    size_t                       i, end;
    ngx_uint_t                   in_string, variable;
    ngx_http_iothub_insert_e     insert;
    ngx_http_iothub_template_t  *template;

    template = ngx_palloc(cf->pool, sizeof(ngx_http_iothub_template_t));
    if (template == NULL) {
        return NULL;
    }

    if (ngx_array_init(&template->parts, cf->pool, 4,
                       sizeof(ngx_http_iothub_part_t))
        != NGX_OK)
    {
        return NULL;
    }

    in_string = 0;

    for (i = 0; i < text->len; i = end) {

        insert = NGX_HTTP_IOTHUB_AS_IS;
        variable = (text->data[i] == '$');

        if (variable) {
            end = ngx_http_iothub_template_name(text, i);

            if (escape) {
                insert = in_string ? NGX_HTTP_IOTHUB_IN_STRING
                                   : NGX_HTTP_IOTHUB_AS_JSON;
            }

        } else {
            end = ngx_http_iothub_template_literal(text, i, &in_string);
        }

        if (ngx_http_iothub_template_part(cf, template, text, i, end,
                                          variable, insert)
            != NGX_OK)
        {
            return NULL;
        }
    }

    return template;
}


/* the end of $name or ${name}; nginx's own compiler judges the name */

static size_t
ngx_http_iothub_template_name(ngx_str_t *text, size_t i)
{
    u_char  ch;

    if (++i < text->len && text->data[i] == '{') {

        while (i < text->len && text->data[i] != '}') {
            i++;
        }

        return ngx_min(i + 1, text->len);
    }

    while (i < text->len) {
        ch = text->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9') || ch == '_'))
        {
            break;
        }

        i++;
    }

    return i;
}


static size_t
ngx_http_iothub_template_literal(ngx_str_t *text, size_t i,
    ngx_uint_t *in_string)
{
    while (i < text->len && text->data[i] != '$') {

        if (text->data[i] == '"') {
            *in_string = !*in_string;

        } else if (text->data[i] == '\\' && *in_string
                   && i + 1 < text->len && text->data[i + 1] != '$')
        {
            i++;
        }

        i++;
    }

    return i;
}


static ngx_int_t
ngx_http_iothub_template_part(ngx_conf_t *cf,
    ngx_http_iothub_template_t *template, ngx_str_t *text, size_t from,
    size_t to, ngx_uint_t variable, ngx_http_iothub_insert_e insert)
{
    ngx_http_iothub_part_t            *part;
    ngx_http_compile_complex_value_t   ccv;

    part = ngx_array_push(&template->parts);
    if (part == NULL) {
        return NGX_ERROR;
    }

    part->literal.data = text->data + from;
    part->literal.len = to - from;
    part->variable = NULL;
    part->insert = insert;

    if (!variable) {
        return NGX_OK;
    }

    part->variable = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (part->variable == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &part->literal;
    ccv.complex_value = part->variable;

    return ngx_http_compile_complex_value(&ccv);
}


/* a number can stand where a string cannot, and the other way round */

ngx_int_t
ngx_http_iothub_template_may_be_json(ngx_pool_t *pool,
    ngx_http_iothub_template_t *template)
{
    ngx_int_t   rc;
    ngx_str_t   text, json;
    ngx_uint_t  quoted;

    for (quoted = 0; quoted <= 1; quoted++) {

        rc = ngx_http_iothub_template_sample(pool, template, quoted, &text);

        if (rc == NGX_DECLINED) {
            return 1;
        }

        if (rc == NGX_OK) {
            rc = ngx_http_iothub_webhook_embed(&text, &json);
        }

        if (rc != NGX_DECLINED) {
            return rc == NGX_OK ? 1 : NGX_ERROR;
        }
    }

    return 0;
}


/*
 * Each variable has a number of its own, as a member has a name.  With these
 * digits it may stand after \u or \u00, too.  NGX_DECLINED: of variables that
 * are inserted as they are, nothing is known.
 */

static ngx_int_t
ngx_http_iothub_template_sample(ngx_pool_t *pool,
    ngx_http_iothub_template_t *template, ngx_uint_t quoted, ngx_str_t *text)
{
    u_char                  *p;
    size_t                   len;
    ngx_uint_t               i, quotes;
    ngx_http_iothub_part_t  *part;

    part = template->parts.elts;
    len = 0;

    for (i = 0; i < template->parts.nelts; i++) {

        if (part[i].variable && part[i].insert == NGX_HTTP_IOTHUB_AS_IS) {
            return NGX_DECLINED;
        }

        len += part[i].literal.len + NGX_INT_T_LEN + 2;
    }

    p = ngx_pnalloc(pool, len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    for (i = 0; i < template->parts.nelts; i++) {

        if (part[i].variable == NULL) {
            p = ngx_cpymem(p, part[i].literal.data, part[i].literal.len);
            continue;
        }

        quotes = quoted && part[i].insert == NGX_HTTP_IOTHUB_AS_JSON;

        p = ngx_sprintf(p, quotes ? "\"%ui\"" : "%ui", 1000 + i);
    }

    text->len = p - text->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_template_eval(ngx_http_request_t *r,
    ngx_http_iothub_template_t *template, ngx_str_t *text)
{
    u_char                  *p;
    ngx_str_t               *values;
    ngx_uint_t               i;
    ngx_http_iothub_part_t  *part;

    part = template->parts.elts;

    values = ngx_palloc(r->pool, template->parts.nelts * sizeof(ngx_str_t));
    if (values == NULL) {
        return NGX_ERROR;
    }

    text->len = 0;

    for (i = 0; i < template->parts.nelts; i++) {

        if (ngx_http_iothub_template_insert(r, &part[i], &values[i])
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        text->len += values[i].len;
    }

    if (template->parts.nelts == 1) {
        *text = values[0];
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, text->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    for (i = 0; i < template->parts.nelts; i++) {
        p = ngx_cpymem(p, values[i].data, values[i].len);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_template_insert(ngx_http_request_t *r,
    ngx_http_iothub_part_t *part, ngx_str_t *text)
{
    ngx_int_t  rc;
    ngx_str_t  json;

    if (part->variable == NULL) {
        *text = part->literal;
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, part->variable, text) != NGX_OK) {
        return NGX_ERROR;
    }

    switch (part->insert) {

    case NGX_HTTP_IOTHUB_IN_STRING:
        return ngx_http_iothub_template_escape(r->pool, text, 0);

    case NGX_HTTP_IOTHUB_AS_JSON:

        rc = ngx_http_iothub_webhook_embed(text, &json);

        if (rc == NGX_OK) {
            *text = json;
            return NGX_OK;
        }

        if (rc == NGX_DECLINED) {
            return ngx_http_iothub_template_escape(r->pool, text, 1);
        }

        return NGX_ERROR;

    default: /* NGX_HTTP_IOTHUB_AS_IS */
        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_iothub_template_escape(ngx_pool_t *pool, ngx_str_t *text,
    ngx_uint_t quoted)
{
    u_char  *p;
    size_t   len;

    len = ngx_http_iothub_json_escape(NULL, text);

    if (!quoted && len == text->len) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, len + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (quoted) {
        p[0] = '"';
        ngx_http_iothub_json_escape(p + 1, text);
        p[len + 1] = '"';

        text->data = p;
        text->len = len + 2;

        return NGX_OK;
    }

    ngx_http_iothub_json_escape(p, text);

    text->data = p;
    text->len = len;

    return NGX_OK;
}
