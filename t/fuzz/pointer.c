
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of JSON pointers.  An input is a pointer up to the first line
 * feed, and a JSON text.  What the webhook room finds must be what another
 * reader of RFC 6901 finds in jansson's tree, its bytes must lie in the body,
 * and its text must be that of jansson.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <jansson.h>

#include "ngx_http_iothub_webhook.h"


#define JSON_FLAGS  (JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL)

#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


static ngx_pool_t  *pool;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* the next name of a pointer, decoded; what is left of the pointer */

static const char *
token(const char *p, const char *last, char *name)
{
    while (p < last && *p != '/') {

        if (*p == '~' && p + 1 < last && (p[1] == '0' || p[1] == '1')) {
            *name++ = p[1] == '0' ? '~' : '/';
            p += 2;
            continue;
        }

        *name++ = *p++;
    }

    *name = '\0';

    return p;
}


static json_t *
element(json_t *array, const char *name)
{
    char           *end;
    unsigned long   n;

    if (*name < '0' || *name > '9' || (*name == '0' && name[1])
        || strlen(name) > 9)
    {
        return NULL;
    }

    n = strtoul(name, &end, 10);

    return *end ? NULL : json_array_get(array, n);
}


static json_t *
find(json_t *json, ngx_str_t *pointer)
{
    char        *name;
    const char  *p, *last;

    p = (char *) pointer->data;
    last = p + pointer->len;

    name = ngx_pnalloc(pool, pointer->len + 1);
    must(name != NULL);

    while (json && p < last) {
        p = token(p + 1, last, name);
        json = json_is_object(json) ? json_object_get(json, name)
               : json_is_array(json) ? element(json, name)
               : NULL;
    }

    return json;
}


/* each "~" is that of "~0" or "~1" */

static ngx_uint_t
is_pointer(ngx_str_t *text)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {

        if (text->data[i] == '~'
            && (i + 1 == text->len
                || (text->data[i + 1] != '0' && text->data[i + 1] != '1')))
        {
            return 0;
        }
    }

    return 1;
}


/* jansson itself loses a NUL that follows a number */

static json_t *
tree_of(ngx_str_t *body)
{
    if (memchr(body->data, '\0', body->len)) {
        return NULL;
    }

    return json_loadb((char *) body->data, body->len, JSON_FLAGS, NULL);
}


static void
check_found(ngx_str_t *body, ngx_http_iothub_value_t *value, json_t *other)
{
    json_t     *found;
    ngx_str_t  *raw, text;

    raw = &value->raw;

    must(value->json);
    must(raw->data >= body->data
         && raw->data + raw->len <= body->data + body->len);

    found = json_loadb((char *) raw->data, raw->len,
                       JSON_FLAGS|JSON_DECODE_ANY, NULL);
    must(found && json_equal(found, other));

    text = *raw;

    if (json_is_string(other)) {
        text.data = (u_char *) json_string_value(other);
        text.len = json_string_length(other);
    }

    must(value->text.len == text.len
         && ngx_memcmp(value->text.data, text.data, text.len) == 0);

    json_decref(found);
}


static void
check(ngx_str_t *pointer, ngx_str_t *body)
{
    json_t                     *tree, *other;
    ngx_int_t                   rc;
    const char                 *reason;
    ngx_http_iothub_value_t     value;
    ngx_http_iothub_webhook_t   wh;
    ngx_http_iothub_locator_t   locator;

    rc = ngx_http_iothub_locator_read(pool, pointer, &locator, &reason);
    must(rc == (is_pointer(pointer) ? NGX_OK : NGX_DECLINED));

    if (rc != NGX_OK) {
        return;
    }

    rc = ngx_http_iothub_webhook_parse(pool, &wh, NGX_HTTP_IOTHUB_JSON, body,
                                       NULL);
    tree = tree_of(body);
    must(rc == (tree ? NGX_OK : NGX_DECLINED));

    if (tree == NULL) {
        return;
    }

    other = find(tree, pointer);
    rc = ngx_http_iothub_webhook_find(&wh, &locator, &value);

    must(rc == (other ? NGX_OK : NGX_DECLINED));

    if (other) {
        check_found(body, &value, other);
    }

    json_decref(tree);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char            *lf;
    ngx_str_t          pointer, body;

    static ngx_log_t   log;

    lf = size ? memchr(data, LF, size) : NULL;

    if (lf == NULL || data[0] != '/'
        || memchr(data, '\0', (const uint8_t *) lf - data))
    {
        return 0;
    }

    ngx_pagesize = 4096;
    pool = ngx_create_pool(4096, &log);
    must(pool != NULL);

    /* each in a buffer of exact size, so that a step out of it is seen */

    pointer.len = (const uint8_t *) lf - data;
    body.len = size - pointer.len - 1;

    pointer.data = malloc(pointer.len);
    must(pointer.data != NULL);
    ngx_memcpy(pointer.data, data, pointer.len);

    body.data = malloc(body.len ? body.len : 1);
    must(body.data != NULL);
    ngx_memcpy(body.data, lf + 1, body.len);

    check(&pointer, &body);

    free(pointer.data);
    free(body.data);

    ngx_destroy_pool(pool);

    return 0;
}
