
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the webhook room.  An input is a letter that says what
 * follows (see the switch), a locator up to the first line feed, and the
 * body: "J/data/id\n{...}".
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <jansson.h>

#include "ngx_http_iothub_webhook.h"


#define JSON_FLAGS  (JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL)

#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


static ngx_pool_t  *pool;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static ngx_uint_t
inside(ngx_str_t *part, ngx_str_t *whole)
{
    return whole->len
           && part->data >= whole->data
           && part->data + part->len <= whole->data + whole->len;
}


/* jansson's opinion, which is not this room's code */

static ngx_uint_t
is_text(ngx_str_t *text)
{
    json_t  *json;

    json = json_stringn(text->len ? (char *) text->data : "", text->len);
    json_decref(json);

    return json != NULL
           && (text->len == 0
               || memchr(text->data, '\0', text->len) == NULL);
}


static void
check_escape(ngx_str_t *text)
{
    u_char     *p;
    size_t      size;
    json_t     *json;
    ngx_str_t   quoted, trimmed;

    size = ngx_http_iothub_json_escape(NULL, text);

    p = ngx_pnalloc(pool, size + 2);
    must(p != NULL);

    p[0] = '"';
    must(ngx_http_iothub_json_escape(p + 1, text) == size);
    p[size + 1] = '"';

    quoted.data = p;
    quoted.len = size + 2;

    must(ngx_http_iothub_webhook_embed(&quoted, &trimmed) == NGX_OK);
    must(trimmed.data == quoted.data && trimmed.len == quoted.len);

    json = json_loadb((char *) p, size + 2, JSON_DECODE_ANY, NULL);
    must(json && json_string_length(json) == text->len);
    must(text->len == 0
         || ngx_memcmp(json_string_value(json), text->data, text->len) == 0);

    json_decref(json);
}


static void
check_value(ngx_http_iothub_webhook_t *wh, ngx_http_iothub_value_t *value)
{
    json_t  *json;

    must(inside(&value->raw, &wh->body) || inside(&value->raw, &wh->args));
    must(!value->escaped);

    if (wh->format == NGX_HTTP_IOTHUB_RAW
        && value->raw.data == wh->body.data)
    {
        return;
    }

    must(is_text(&value->text));
    check_escape(&value->text);

    if (!value->json) {
        must(value->type == NGX_HTTP_IOTHUB_STRING);
        return;
    }

    json = json_loadb((char *) value->raw.data, value->raw.len,
                      JSON_FLAGS|JSON_DECODE_ANY, NULL);
    must(json != NULL);

    if (value->type == NGX_HTTP_IOTHUB_STRING) {
        must(json_is_string(json)
             && json_string_length(json) == value->text.len
             && ngx_memcmp(json_string_value(json), value->text.data,
                           value->text.len)
                == 0);

    } else {
        must(!json_is_string(json));
        must(value->text.data == value->raw.data
             && value->text.len == value->raw.len);
    }

    json_decref(json);
}


static void
check_locator(ngx_http_iothub_webhook_t *wh, ngx_str_t *text)
{
    ngx_int_t                   rc;
    const char                 *reason;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_locator_t   locator;

    reason = NULL;
    rc = ngx_http_iothub_locator_read(pool, text, &locator, &reason);

    if (rc != NGX_OK) {
        must(rc == NGX_DECLINED && reason != NULL);
        return;
    }

    wh->reason = NULL;
    rc = ngx_http_iothub_webhook_find(wh, &locator, &value);

    switch (rc) {

    case NGX_OK:
        check_value(wh, &value);
        break;

    case NGX_ABORT:
        must(wh->reason != NULL && wh->args.len);
        break;

    default:
        must(rc == NGX_DECLINED);
    }
}


/* every member of the root, by its name, is the one that jansson has */

static void
check_members(ngx_http_iothub_webhook_t *wh, json_t *tree)
{
    void                       *iter;
    json_t                     *alone;
    ngx_str_t                   name;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_step_t      step;
    ngx_http_iothub_locator_t   locator;

    must(!json_is_object(tree) || json_object_size(tree) == wh->members.nelts);

    ngx_memzero(&locator, sizeof(ngx_http_iothub_locator_t));
    ngx_memzero(&step, sizeof(ngx_http_iothub_step_t));

    locator.steps = &step;
    locator.nsteps = 1;

    for (iter = json_object_iter(tree);
         iter;
         iter = json_object_iter_next(tree, iter))
    {
        name.data = (u_char *) json_object_iter_key(iter);
        name.len = ngx_strlen(name.data);
        step.name = name;

        must(ngx_http_iothub_webhook_find(wh, &locator, &value) == NGX_OK);
        check_value(wh, &value);

        alone = json_loadb((char *) value.raw.data, value.raw.len,
                           JSON_FLAGS|JSON_DECODE_ANY, NULL);
        must(alone && json_equal(alone, json_object_iter_value(iter)));

        json_decref(alone);
    }
}


static void
check_json(ngx_str_t *locator, ngx_str_t *body)
{
    json_t                     *tree;
    ngx_int_t                   rc;
    ngx_http_iothub_webhook_t   wh;

    tree = NULL;

    if (body->len && memchr(body->data, '\0', body->len) == NULL) {
        tree = json_loadb((char *) body->data, body->len, JSON_FLAGS, NULL);
    }

    rc = ngx_http_iothub_webhook_parse(pool, &wh, NGX_HTTP_IOTHUB_JSON, body,
                                       NULL);

    must(rc == (tree ? NGX_OK : NGX_DECLINED));
    must(tree || wh.reason);

    if (tree) {
        must(inside(&wh.root, &wh.body));
        check_locator(&wh, locator);
        check_members(&wh, tree);
    }

    json_decref(tree);
}


/* what needs no decoding is found as it stands there */

static void
check_form(ngx_str_t *locator, ngx_str_t *body)
{
    u_char                     *p, *last, *end;
    ngx_int_t                   rc;
    ngx_uint_t                  n;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_locator_t   l;
    ngx_http_iothub_webhook_t   wh;

    rc = ngx_http_iothub_webhook_parse(pool, &wh, NGX_HTTP_IOTHUB_FORM, body,
                                       NULL);

    if (rc != NGX_OK) {
        must(rc == NGX_DECLINED && wh.reason);
        return;
    }

    check_locator(&wh, locator);

    if (body->len == 0) {
        return;
    }

    ngx_memzero(&l, sizeof(ngx_http_iothub_locator_t));
    l.kind = NGX_HTTP_IOTHUB_LOCATOR_FORM;

    p = body->data;
    last = p + body->len;

    for (n = 0; p < last && n < 32; p = end + 1, n++) {

        l.name.data = p;
        while (p < last && *p != '=' && *p != '&' && *p != '%' && *p != '+') {
            p++;
        }

        l.name.len = p - l.name.data;

        for (end = p; end < last && *end != '&'; end++) { /* void */ }

        if (end == l.name.data || (p < last && (*p == '%' || *p == '+'))) {
            continue;
        }

        must(ngx_http_iothub_webhook_find(&wh, &l, &value) == NGX_OK);
        must(value.raw.data == (p < end ? p + 1 : end));
        must(value.raw.data + value.raw.len == end);
        check_value(&wh, &value);
    }
}


static void
check_query(ngx_str_t *locator, ngx_str_t *args)
{
    ngx_str_t                   body;
    ngx_http_iothub_webhook_t   wh;

    ngx_str_null(&body);

    must(ngx_http_iothub_webhook_parse(pool, &wh, NGX_HTTP_IOTHUB_NO_BODY,
                                       &body, args)
         == NGX_OK);

    check_locator(&wh, locator);
}


static void
check_format(ngx_str_t *type, ngx_str_t *body)
{
    ngx_int_t                  rc;
    ngx_http_iothub_format_e   format;
    ngx_http_iothub_webhook_t  wh;

    rc = ngx_http_iothub_format_of(type, body, &format);
    must(rc == NGX_OK || rc == NGX_DECLINED);

    if (rc == NGX_OK) {
        must(format != NGX_HTTP_IOTHUB_RAW);
        rc = ngx_http_iothub_webhook_parse(pool, &wh, format, body, type);
        must(rc == NGX_OK || rc == NGX_DECLINED);
    }
}


static void
check_embed(ngx_str_t *body)
{
    json_t     *json;
    ngx_int_t   rc;
    ngx_str_t   trimmed;

    rc = ngx_http_iothub_webhook_embed(body, &trimmed);
    must(rc == NGX_OK || rc == NGX_DECLINED);

    if (rc == NGX_OK) {
        must(inside(&trimmed, body));
        must(trimmed.len && trimmed.data[0] > ' '
             && trimmed.data[trimmed.len - 1] > ' ');

        json = json_loadb((char *) trimmed.data, trimmed.len,
                          JSON_FLAGS|JSON_DECODE_ANY, NULL);
        must(json != NULL);
        json_decref(json);
    }

    if (is_text(body)) {
        check_escape(body);
    }
}


static void
check_raw(ngx_str_t *locator, ngx_str_t *body)
{
    ngx_http_iothub_webhook_t  wh;

    must(ngx_http_iothub_webhook_parse(pool, &wh, NGX_HTTP_IOTHUB_RAW, body,
                                       locator)
         == NGX_OK);

    check_locator(&wh, locator);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char            *lf, *copy;
    ngx_str_t          locator, body;
    static ngx_log_t   log;

    if (size == 0) {
        return 0;
    }

    ngx_pagesize = 4096;

    pool = ngx_create_pool(4096, &log);
    must(pool != NULL);

    /* two buffers of exact size, so that a step out of either is seen */

    lf = memchr(data + 1, '\n', size - 1);

    locator.data = (u_char *) data + 1;
    locator.len = (lf ? lf : data + size) - locator.data;

    body.len = lf ? data + size - (lf + 1) : 0;

    copy = malloc(size);
    must(copy != NULL);

    ngx_memcpy(copy, locator.data, locator.len);
    locator.data = copy;

    body.data = malloc(body.len ? body.len : 1);
    must(body.data != NULL);

    if (body.len) {
        ngx_memcpy(body.data, lf + 1, body.len);
    }

    switch (data[0]) {

    case 'F':
        check_form(&locator, &body);
        break;

    case 'Q':
        check_query(&locator, &body);
        break;

    case 'T':
        check_format(&locator, &body);
        break;

    case 'E':
        check_embed(&body);
        break;

    case 'R':
        check_raw(&locator, &body);
        break;

    default: /* 'J' */
        check_json(&locator, &body);
    }

    free(body.data);
    free(copy);

    ngx_destroy_pool(pool);

    return 0;
}
