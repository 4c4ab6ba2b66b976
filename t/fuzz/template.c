
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the template room, with escape=json.  An input is a template
 * up to the first line feed, and the value that each of its variables has.
 *
 * If a template makes JSON both of a number and of a text with quotes, it
 * makes JSON of any text: no value can get out of its place.
 *
 * The room is part of this program, which stands in for nginx's variables:
 * each has the same value here.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <jansson.h>

#define ngx_http_compile_complex_value  stand_in_compile
#define ngx_http_complex_value          stand_in_value

static ngx_int_t stand_in_compile(ngx_http_compile_complex_value_t *ccv);
static ngx_int_t stand_in_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *val, ngx_str_t *value);

#include "ngx_http_iothub_template.c"


#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


static ngx_str_t  variable;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static ngx_int_t
stand_in_compile(ngx_http_compile_complex_value_t *ccv)
{
    must(ccv->value->len && ccv->value->data[0] == '$');

    return NGX_OK;
}


static ngx_int_t
stand_in_value(ngx_http_request_t *r, ngx_http_complex_value_t *val,
    ngx_str_t *value)
{
    *value = variable;

    return NGX_OK;
}


/* a template is not bound to have members with different names */

static json_t *
parse(ngx_str_t *text)
{
    return json_loadb(text->len ? (char *) text->data : "", text->len,
                      JSON_DECODE_ANY|JSON_DECODE_INT_AS_REAL, NULL);
}


static json_t *
made(ngx_http_request_t *r, ngx_http_iothub_template_t *template,
    u_char *data, size_t len)
{
    ngx_str_t  text;

    variable.data = data;
    variable.len = len;

    must(ngx_http_iothub_template_eval(r, template, &text) == NGX_OK);

    return parse(&text);
}


static ngx_uint_t
is_text(u_char *data, size_t len)
{
    json_t  *json;

    json = json_stringn(len ? (char *) data : "", len);
    json_decref(json);

    return json != NULL && (len == 0 || memchr(data, '\0', len) == NULL);
}


static void
check(ngx_pool_t *pool, ngx_str_t *text, u_char *value, size_t len)
{
    json_t                      *number, *quotes, *any;
    ngx_conf_t                   cf;
    ngx_http_request_t           r;
    ngx_http_iothub_template_t  *template;

    ngx_memzero(&cf, sizeof(ngx_conf_t));
    ngx_memzero(&r, sizeof(ngx_http_request_t));

    cf.pool = pool;
    r.pool = pool;

    template = ngx_http_iothub_template_compile(&cf, text, 1);
    must(template != NULL);

    number = made(&r, template, (u_char *) "0", 1);
    quotes = made(&r, template, (u_char *) "\"'\\", 3);
    any = made(&r, template, value, len);

    must(!number || !quotes || any || !is_text(value, len));

    json_decref(number);
    json_decref(quotes);
    json_decref(any);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char            *lf, *value;
    size_t             len;
    ngx_str_t          text;
    ngx_pool_t        *pool;

    static ngx_log_t   log;

    lf = size ? memchr(data, LF, size) : NULL;

    if (lf == NULL) {
        return 0;
    }

    ngx_pagesize = 4096;
    pool = ngx_create_pool(4096, &log);
    must(pool != NULL);

    /* each in a buffer of exact size, so that a step out of it is seen */

    text.len = (const uint8_t *) lf - data;
    text.data = malloc(text.len ? text.len : 1);
    must(text.data != NULL);
    ngx_memcpy(text.data, data, text.len);

    len = size - text.len - 1;
    value = malloc(len ? len : 1);
    must(value != NULL);
    ngx_memcpy(value, lf + 1, len);

    check(pool, &text, value, len);

    free(text.data);
    free(value);

    ngx_destroy_pool(pool);

    return 0;
}
