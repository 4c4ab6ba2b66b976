
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_webhook.h"
#include "ngx_http_iothub_member.h"
#include "ngx_http_iothub_plain.h"

#include <jansson.h>


/*
 * Integers are read as reals: otherwise 2^63 would be an error.  The values
 * themselves are never used, only the text is.
 */

#define NGX_HTTP_IOTHUB_JSON_FLAGS                                            \
    (JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL)


typedef struct {
    enum json_error_code        code;
    const char                 *reason;
} ngx_http_iothub_json_reason_t;


typedef ngx_int_t (*ngx_http_iothub_find_pt)(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);


static ngx_int_t ngx_http_iothub_parse_json(ngx_http_iothub_webhook_t *wh);
static ngx_int_t ngx_http_iothub_plain_members(
    ngx_http_iothub_webhook_t *wh, ngx_http_iothub_member_t *members,
    ngx_uint_t n);
static ngx_int_t ngx_http_iothub_validate_json(ngx_str_t *text, size_t flags,
    const char **reason);
static const char *ngx_http_iothub_json_reason(ngx_str_t *text,
    enum json_error_code code);
static ngx_int_t ngx_http_iothub_index_json(ngx_http_iothub_webhook_t *wh);
static ngx_int_t ngx_http_iothub_parse_form(ngx_http_iothub_webhook_t *wh);

static ngx_int_t ngx_http_iothub_find_json(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_find_form(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_find_query(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_find_header(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_find_body(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);
static ngx_int_t ngx_http_iothub_find_name(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);

static ngx_http_iothub_member_t *ngx_http_iothub_find_root(
    ngx_http_iothub_webhook_t *wh, ngx_str_t *name);
static ngx_int_t ngx_http_iothub_find_child(ngx_http_iothub_step_t *step,
    ngx_http_iothub_member_t *member);
static void ngx_http_iothub_json_value(ngx_http_iothub_member_t *member,
    ngx_http_iothub_value_t *value);


/* in the order of ngx_http_iothub_locator_e */

static ngx_http_iothub_find_pt  ngx_http_iothub_find[] = {
    ngx_http_iothub_find_json,
    ngx_http_iothub_find_form,
    ngx_http_iothub_find_query,
    ngx_http_iothub_find_header,
    ngx_http_iothub_find_body,
    ngx_http_iothub_find_name
};


static ngx_http_iothub_json_reason_t  ngx_http_iothub_json_reasons[] = {
    { json_error_stack_overflow, "nested too deeply" },
    { json_error_invalid_utf8, "bad UTF-8" },
    { json_error_null_character, "NUL character" },
    { json_error_null_byte_in_key, "NUL character" },
    { json_error_duplicate_key, "duplicate member" },
    { json_error_numeric_overflow, "number out of range" },
    { json_error_end_of_input_expected, "text after the JSON value" },
    { json_error_unknown, NULL }
};


ngx_int_t
ngx_http_iothub_webhook_parse(ngx_pool_t *pool, ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_format_e format, ngx_str_t *body, ngx_str_t *args)
{
    ngx_memzero(wh, sizeof(ngx_http_iothub_webhook_t));

    wh->pool = pool;
    wh->format = format;
    wh->body = *body;

    if (args != NULL) {
        wh->args = *args;
    }

    switch (format) {

    case NGX_HTTP_IOTHUB_JSON:
        return ngx_http_iothub_parse_json(wh);

    case NGX_HTTP_IOTHUB_FORM:
        return ngx_http_iothub_parse_form(wh);

    default: /* NGX_HTTP_IOTHUB_NO_BODY, NGX_HTTP_IOTHUB_RAW */
        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_iothub_parse_json(ngx_http_iothub_webhook_t *wh)
{
    u_char                    *p, *last;
    ngx_int_t                  rc;
    ngx_uint_t                 n;
    ngx_http_iothub_member_t   members[NGX_HTTP_IOTHUB_PLAIN_NAMES];

    n = 0;

    if (!ngx_http_iothub_plain_json(&wh->body, members, &n)) {
        n = 0;
        rc = ngx_http_iothub_validate_json(&wh->body,
                                           NGX_HTTP_IOTHUB_JSON_FLAGS,
                                           &wh->reason);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    p = wh->body.data;
    last = p + wh->body.len;

    wh->root.data = ngx_http_iothub_skip_space(p, last);

    while (last[-1] != '}' && last[-1] != ']') {
        last--;
    }

    wh->root.len = last - wh->root.data;

    return n ? ngx_http_iothub_plain_members(wh, members, n)
             : ngx_http_iothub_index_json(wh);
}


static ngx_int_t
ngx_http_iothub_plain_members(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_member_t *members, ngx_uint_t n)
{
    if (ngx_array_init(&wh->members, wh->pool, n,
                       sizeof(ngx_http_iothub_member_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(wh->members.elts, members,
               n * sizeof(ngx_http_iothub_member_t));
    wh->members.nelts = n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_validate_json(ngx_str_t *text, size_t flags,
    const char **reason)
{
    json_t        *json;
    json_error_t   error;

    if (text->len == 0) {
        *reason = "empty text";
        return NGX_DECLINED;
    }

    /*
     * jansson up to 2.14 at least loses a NUL that follows a number, true,
     * false or null, and accepts the rest
     */

    if (memchr(text->data, '\0', text->len) != NULL) {
        *reason = "NUL character";
        return NGX_DECLINED;
    }

    json = json_loadb((char *) text->data, text->len, flags, &error);

    if (json != NULL) {
        json_decref(json);
        return NGX_OK;
    }

    switch (json_error_code(&error)) {

    case json_error_unknown:
    case json_error_out_of_memory:
        return NGX_ERROR;

    default:
        *reason = ngx_http_iothub_json_reason(text, json_error_code(&error));
        return NGX_DECLINED;
    }
}


static const char *
ngx_http_iothub_json_reason(ngx_str_t *text, enum json_error_code code)
{
    u_char                         *p, *last;
    ngx_http_iothub_json_reason_t  *r;

    for (r = ngx_http_iothub_json_reasons; r->reason; r++) {
        if (r->code == code) {
            return r->reason;
        }
    }

    /* where jansson says no more than that it is bad syntax */

    if (text->len >= 3 && ngx_memcmp(text->data, "\xef\xbb\xbf", 3) == 0) {
        return "byte order mark";
    }

    last = text->data + text->len;
    p = ngx_http_iothub_skip_space(text->data, last);

    if (p == last) {
        return "empty text";
    }

    if (*p != '{' && *p != '[') {
        return "neither a JSON object nor an array";
    }

    if (code == json_error_premature_end_of_input) {
        return "JSON ends too early";
    }

    return "not JSON";
}


/*
 * One pass over the validated text.  If the two parsers ever disagreed on
 * where something ends, the webhook is refused.
 */

static ngx_int_t
ngx_http_iothub_index_json(ngx_http_iothub_webhook_t *wh)
{
    u_char                    *p, *last;
    ngx_int_t                  rc;
    ngx_uint_t                 escaped;
    ngx_http_iothub_member_t  *member, next;

    p = wh->root.data;
    last = p + wh->root.len;

    if (*p == '[') {
        if (ngx_http_iothub_skip_value(p, last, &escaped) == last) {
            return NGX_OK;
        }

        wh->reason = "not JSON";
        return NGX_DECLINED;
    }

    if (ngx_array_init(&wh->members, wh->pool, 8,
                       sizeof(ngx_http_iothub_member_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p++;

    for ( ;; ) {
        rc = ngx_http_iothub_next_member(&p, last, 1, &next);

        if (rc != NGX_OK) {
            break;
        }

        member = ngx_array_push(&wh->members);
        if (member == NULL) {
            return NGX_ERROR;
        }

        *member = next;
    }

    if (rc == NGX_DONE && p == last) {
        return NGX_OK;
    }

    wh->reason = "not JSON";
    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_parse_form(ngx_http_iothub_webhook_t *wh)
{
    u_char                  *p, *last;
    ngx_int_t                rc;
    ngx_http_iothub_pair_t  *pair, next;

    if (ngx_array_init(&wh->pairs, wh->pool, 8,
                       sizeof(ngx_http_iothub_pair_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (wh->body.len == 0) {
        return NGX_OK;
    }

    p = wh->body.data;
    last = p + wh->body.len;

    while (ngx_http_iothub_next_pair(&p, last, &next) == NGX_OK) {

        if (wh->pairs.nelts == NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS) {
            wh->reason = "too many pairs";
            return NGX_DECLINED;
        }

        pair = ngx_array_push(&wh->pairs);
        if (pair == NULL) {
            return NGX_ERROR;
        }

        *pair = next;

        rc = ngx_http_iothub_unescape_pair(wh->pool, &next.name, &pair->name,
                                           &wh->reason);
        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_iothub_unescape_pair(wh->pool, &next.value, &pair->text,
                                           &wh->reason);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_http_iothub_form_duplicates(wh->pairs.elts, wh->pairs.nelts)) {
        wh->reason = "two pairs of one name";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_webhook_find(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_int_t  rc;

    rc = ngx_http_iothub_webhook_find_raw(wh, locator, value);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_iothub_webhook_text(wh->pool, value);
}


ngx_int_t
ngx_http_iothub_webhook_find_raw(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_memzero(value, sizeof(ngx_http_iothub_value_t));

    return ngx_http_iothub_find[locator->kind](wh, locator, value);
}


static ngx_int_t
ngx_http_iothub_find_json(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_uint_t                 i;
    ngx_http_iothub_member_t  *root, member;

    if (wh->format != NGX_HTTP_IOTHUB_JSON) {
        return NGX_DECLINED;
    }

    ngx_memzero(&member, sizeof(ngx_http_iothub_member_t));
    member.value = wh->root;
    member.value_escaped = wh->escaped;

    for (i = 0; i < locator->nsteps; i++) {

        if (i == 0 && wh->root.data[0] == '{') {
            root = ngx_http_iothub_find_root(wh, &locator->steps[0].name);

            if (root == NULL) {
                return NGX_DECLINED;
            }

            member = *root;
            continue;
        }

        if (ngx_http_iothub_find_child(&locator->steps[i], &member)
            != NGX_OK)
        {
            return NGX_DECLINED;
        }
    }

    ngx_http_iothub_json_value(&member, value);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_find_form(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_uint_t               i;
    ngx_http_iothub_pair_t  *pair;

    if (wh->format != NGX_HTTP_IOTHUB_FORM) {
        return NGX_DECLINED;
    }

    pair = wh->pairs.elts;

    for (i = 0; i < wh->pairs.nelts; i++) {

        if (ngx_http_iothub_same(&pair[i].name, &locator->name)) {
            value->raw = pair[i].value;
            value->text = pair[i].text;

            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_find_query(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    u_char                  *p, *last;
    ngx_int_t                rc;
    ngx_uint_t               found;
    ngx_http_iothub_pair_t   pair;

    if (wh->args.len == 0) {
        return NGX_DECLINED;
    }

    p = wh->args.data;
    last = p + wh->args.len;
    found = 0;

    while (ngx_http_iothub_next_pair(&p, last, &pair) == NGX_OK) {

        if (!ngx_http_iothub_pair_is(&pair.name, &locator->name)) {
            continue;
        }

        if (found) {
            wh->reason = "two pairs of one name in the query string";
            return NGX_ABORT;
        }

        found = 1;
        value->raw = pair.value;
    }

    if (!found) {
        return NGX_DECLINED;
    }

    rc = ngx_http_iothub_unescape_pair(wh->pool, &value->raw, &value->text,
                                       &wh->reason);

    return rc == NGX_DECLINED ? NGX_ABORT : rc;
}


static ngx_int_t
ngx_http_iothub_find_header(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_str_t  *header;

    header = wh->header ? wh->header(wh->header_data, &locator->name) : NULL;

    if (header == NULL) {
        return NGX_DECLINED;
    }

    value->type = NGX_HTTP_IOTHUB_STRING;
    value->raw = *header;
    value->text = *header;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_find_body(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    if (wh->body.len == 0) {
        return NGX_DECLINED;
    }

    value->raw = wh->body;
    value->text = wh->body;

    if (wh->format == NGX_HTTP_IOTHUB_JSON) {
        value->json = 1;
        value->type = wh->root.data[0] == '{' ? NGX_HTTP_IOTHUB_OBJECT
                                              : NGX_HTTP_IOTHUB_ARRAY;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_find_name(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value)
{
    ngx_int_t                  rc;
    ngx_http_iothub_member_t  *member;

    member = (wh->format == NGX_HTTP_IOTHUB_JSON)
             ? ngx_http_iothub_find_root(wh, &locator->name) : NULL;

    if (member && member->value.data[0] != 'n') {
        ngx_http_iothub_json_value(member, value);
        return NGX_OK;
    }

    rc = ngx_http_iothub_find_form(wh, locator, value);

    if (rc == NGX_DECLINED) {
        rc = ngx_http_iothub_find_query(wh, locator, value);
    }

    /* a null is better than nothing */

    if (rc == NGX_DECLINED && member) {
        ngx_http_iothub_json_value(member, value);
        return NGX_OK;
    }

    return rc;
}


static ngx_http_iothub_member_t *
ngx_http_iothub_find_root(ngx_http_iothub_webhook_t *wh, ngx_str_t *name)
{
    ngx_uint_t                 i;
    ngx_http_iothub_member_t  *members;

    members = wh->members.elts;

    for (i = 0; i < wh->members.nelts; i++) {

        if (members[i].name.len != name->len && !members[i].name_escaped) {
            continue;
        }

        if (ngx_http_iothub_member_is(&members[i], name)) {
            return &members[i];
        }
    }

    return NULL;
}


/* replaces member by the one of its members or elements that step names */

static ngx_int_t
ngx_http_iothub_find_child(ngx_http_iothub_step_t *step,
    ngx_http_iothub_member_t *member)
{
    u_char      *p, *last;
    ngx_int_t    i;
    ngx_uint_t   object;

    p = member->value.data;
    last = p + member->value.len;

    if (*p == '{') {
        object = 1;

    } else if (*p == '[' && step->index >= 0) {
        object = 0;

    } else {
        return NGX_DECLINED;
    }

    p++;

    for (i = 0;
         ngx_http_iothub_next_member(&p, last, object, member) == NGX_OK;
         i++)
    {
        if (object ? ngx_http_iothub_member_is(member, &step->name)
                   : (ngx_uint_t) (i == step->index))
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static void
ngx_http_iothub_json_value(ngx_http_iothub_member_t *member,
    ngx_http_iothub_value_t *value)
{
    value->raw = member->value;
    value->text = member->value;
    value->json = 1;

    switch (member->value.data[0]) {

    case '"':
        value->type = NGX_HTTP_IOTHUB_STRING;

        if (member->value_escaped) {
            value->escaped = 1;
            ngx_str_null(&value->text);

        } else {
            value->text.data++;
            value->text.len -= 2;
        }

        break;

    case '{':
        value->type = NGX_HTTP_IOTHUB_OBJECT;
        break;

    case '[':
        value->type = NGX_HTTP_IOTHUB_ARRAY;
        break;

    case 't':
        value->type = NGX_HTTP_IOTHUB_TRUE;
        break;

    case 'f':
        value->type = NGX_HTTP_IOTHUB_FALSE;
        break;

    case 'n':
        value->type = NGX_HTTP_IOTHUB_NULL;
        break;

    default:
        value->type = NGX_HTTP_IOTHUB_NUMBER;
    }
}


ngx_int_t
ngx_http_iothub_webhook_first(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_elements_t *elements)
{
    ngx_http_iothub_value_t  value;

    if (ngx_http_iothub_webhook_find_raw(wh, locator, &value) != NGX_OK
        || !value.json
        || value.type != NGX_HTTP_IOTHUB_ARRAY)
    {
        return NGX_DECLINED;
    }

    elements->wh = wh;
    elements->pos = value.raw.data + 1;
    elements->last = value.raw.data + value.raw.len;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_webhook_next(ngx_http_iothub_elements_t *elements,
    ngx_http_iothub_webhook_t *element)
{
    ngx_http_iothub_member_t  member;

    if (ngx_http_iothub_next_member(&elements->pos, elements->last, 0,
                                    &member)
        != NGX_OK)
    {
        return NGX_DONE;
    }

    *element = *elements->wh;
    element->root = member.value;
    element->escaped = member.value_escaped;
    element->element = 1;
    element->members.nelts = 0;

    if (element->root.data[0] != '{') {
        return NGX_OK;
    }

    return ngx_http_iothub_index_json(element) == NGX_OK ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_iothub_webhook_text(ngx_pool_t *pool, ngx_http_iothub_value_t *value)
{
    u_char  *p, *q, *last, *dst;
    size_t   n;

    if (!value->escaped) {
        return NGX_OK;
    }

    p = value->raw.data + 1;
    last = value->raw.data + value->raw.len - 1;

    /* an escape is never shorter than what it stands for */

    dst = ngx_pnalloc(pool, last - p);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    value->text.data = dst;

    while (p < last) {

        q = memchr(p, '\\', last - p);
        if (q == NULL) {
            q = last;
        }

        dst = ngx_cpymem(dst, p, q - p);
        p = q;

        if (p < last) {
            n = ngx_http_iothub_unescape_json(&p, last, dst);
            if (n == 0) {
                return NGX_ERROR;
            }

            dst += n;
        }
    }

    value->text.len = dst - value->text.data;
    value->escaped = 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_webhook_embed(ngx_str_t *text, ngx_str_t *json)
{
    u_char      *p, *last;
    ngx_int_t    rc;
    const char  *reason;

    if (!ngx_http_iothub_plain_json(text, NULL, NULL)) {
        rc = ngx_http_iothub_validate_json(text, NGX_HTTP_IOTHUB_JSON_FLAGS
                                                 |JSON_DECODE_ANY,
                                           &reason);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    p = text->data;
    last = p + text->len;

    p = ngx_http_iothub_skip_space(p, last);

    while (last > p && ngx_http_iothub_skip_space(last - 1, last) == last) {
        last--;
    }

    json->data = p;
    json->len = last - p;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_webhook_only(ngx_http_iothub_value_t *value,
    const ngx_str_t *names)
{
    u_char                    *p, *last;
    ngx_str_t                  name;
    ngx_uint_t                 i;
    ngx_http_iothub_member_t   member;

    if (!value->json || value->type != NGX_HTTP_IOTHUB_OBJECT) {
        return NGX_DECLINED;
    }

    p = value->raw.data + 1;
    last = value->raw.data + value->raw.len;

    while (ngx_http_iothub_next_member(&p, last, 1, &member) == NGX_OK) {

        for (i = 0; names[i].len; i++) {
            name = names[i];

            if (ngx_http_iothub_member_is(&member, &name)) {
                break;
            }
        }

        if (names[i].len == 0) {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}
