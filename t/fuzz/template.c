
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the template room, with escape=json.  An input is a template
 * up to the first line feed, and the value that each of its variables has.
 *
 * What a template makes must be what another renderer makes, which leaves all
 * escaping to jansson: the same JSON, or none in both.  And if it makes JSON
 * both of a number and of a text with quotes, it makes JSON of any text: no
 * value can get out of its place.
 *
 * The room is part of this program, which stands in for nginx's variables:
 * each has the same value here.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <ctype.h>
#include <jansson.h>

#define ngx_http_compile_complex_value  stand_in_compile
#define ngx_http_complex_value          stand_in_value

static ngx_int_t stand_in_compile(ngx_http_compile_complex_value_t *ccv);
static ngx_int_t stand_in_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *val, ngx_str_t *value);

#include "ngx_http_iothub_template.c"


#define JSON_FLAGS  (JSON_DECODE_ANY|JSON_DECODE_INT_AS_REAL)

/* of what the other renderer makes, in bytes */
#define MOST  (1 << 20)

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
                      JSON_FLAGS, NULL);
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


/* the end of $name or ${name} */

static u_char *
name_end(u_char *p, u_char *last)
{
    if (++p < last && *p == '{') {
        p = memchr(p, '}', last - p);
        return p ? p + 1 : last;
    }

    while (p < last && (isalnum(*p) || *p == '_')) {
        p++;
    }

    return p;
}


/* as much of a template as stands before the next variable */

static u_char *
literal(u_char *p, u_char *last, u_char **dst, ngx_uint_t *quoted)
{
    while (p < last && *p != '$') {

        if (*p == '"') {
            *quoted ^= 1;

        } else if (*p == '\\' && *quoted && last - p > 1 && p[1] != '$') {
            *(*dst)++ = *p++;
        }

        *(*dst)++ = *p++;
    }

    return p;
}


/* a value without the blanks around it, which may be a part of its JSON */

static void
trim(u_char **value, size_t *len)
{
    while (*len && strchr(" \t\r\n", (*value)[*len - 1])) {
        (*len)--;
    }

    while (*len && strchr(" \t\r\n", **value)) {
        (*value)++;
        (*len)--;
    }
}


/*
 * The other renderer: a value as it is where it is JSON and stands outside of
 * quotes, else as jansson writes a string.
 */

static json_t *
rendered(ngx_pool_t *pool, ngx_str_t *template, u_char *value, size_t len)
{
    char        *string;
    u_char      *p, *last, *dst;
    size_t       size;
    json_t      *json, *self;
    ngx_str_t    text;
    ngx_uint_t   quoted;

    json = json_stringn(len ? (char *) value : "", len);
    string = json_dumps(json, JSON_ENCODE_ANY);
    must(string != NULL);
    size = strlen(string);
    json_decref(json);

    self = json_loadb(len ? (char *) value : "", len,
                      JSON_FLAGS|JSON_REJECT_DUPLICATES, NULL);

    text.data = ngx_pnalloc(pool, template->len * (len * 6 + 2) + 1);
    must(text.data != NULL);
    dst = text.data;

    if (self) {
        trim(&value, &len);
    }

    quoted = 0;
    p = template->data;
    last = p + template->len;

    while ((p = literal(p, last, &dst, &quoted)) < last) {

        p = name_end(p, last);

        dst = quoted ? ngx_cpymem(dst, string + 1, size - 2)
              : self ? ngx_cpymem(dst, value, len)
              : ngx_cpymem(dst, string, size);
    }

    free(string);
    json_decref(self);

    text.len = dst - text.data;

    return parse(&text);
}


static void
check(ngx_pool_t *pool, ngx_str_t *text, u_char *value, size_t len)
{
    json_t                      *number, *quotes, *any, *other;
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

    if (is_text(value, len) && text->len * (len * 6 + 2) <= MOST) {
        other = rendered(pool, text, value, len);

        must(any && other ? json_equal(any, other) : any == other);

        json_decref(other);
    }

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
