
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_webhook.h"
#include "ngx_http_iothub_plain.h"

#include <jansson.h>


/*
 * Integers are read as reals: otherwise 2^63 would be an error.  The values
 * themselves are never used, only the text is.
 */

#define NGX_HTTP_IOTHUB_JSON_FLAGS                                            \
    (JSON_REJECT_DUPLICATES|JSON_DECODE_INT_AS_REAL)


typedef struct {
    ngx_str_t                   name;       /* a form's: decoded */
    ngx_str_t                   value;      /* as sent */
    ngx_str_t                   text;       /* decoded */
} ngx_http_iothub_pair_t;


typedef struct {
    ngx_str_t                   type;
    ngx_http_iothub_format_e    format;
} ngx_http_iothub_media_t;


typedef struct {
    ngx_str_t                   prefix;
    ngx_http_iothub_locator_e   kind;
} ngx_http_iothub_locator_prefix_t;


typedef struct {
    enum json_error_code        code;
    const char                 *reason;
} ngx_http_iothub_json_reason_t;


typedef ngx_int_t (*ngx_http_iothub_find_pt)(ngx_http_iothub_webhook_t *wh,
    ngx_http_iothub_locator_t *locator, ngx_http_iothub_value_t *value);


static ngx_http_iothub_format_e ngx_http_iothub_format_of_body(
    ngx_str_t *body);
static ngx_int_t ngx_http_iothub_format_of_type(ngx_str_t *type,
    ngx_http_iothub_format_e *format);
static ngx_int_t ngx_http_iothub_next_parameter(u_char **pos, u_char *last,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_http_iothub_trim_end(ngx_str_t *text);
static ngx_uint_t ngx_http_iothub_same_word(ngx_str_t *one, ngx_str_t *two);

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
static ngx_uint_t ngx_http_iothub_form_duplicates(
    ngx_http_iothub_pair_t *pairs, ngx_uint_t n);
static int ngx_libc_cdecl ngx_http_iothub_cmp_pairs(const void *one,
    const void *two);

static ngx_int_t ngx_http_iothub_locator_pointer(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_iothub_locator_t *locator, const char **reason);
static ngx_int_t ngx_http_iothub_locator_step(ngx_pool_t *pool,
    ngx_http_iothub_step_t *step);
static ngx_int_t ngx_http_iothub_locator_index(ngx_str_t *name);

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

static ngx_int_t ngx_http_iothub_find_root(ngx_http_iothub_webhook_t *wh,
    ngx_str_t *name, ngx_http_iothub_member_t *member);
static ngx_int_t ngx_http_iothub_find_child(ngx_http_iothub_step_t *step,
    ngx_http_iothub_member_t *member);
static void ngx_http_iothub_json_value(ngx_http_iothub_member_t *member,
    ngx_http_iothub_value_t *value);

static ngx_int_t ngx_http_iothub_next_member(u_char **pos, u_char *last,
    ngx_uint_t object, ngx_http_iothub_member_t *member);
static u_char *ngx_http_iothub_skip_space(u_char *p, u_char *last);
static u_char *ngx_http_iothub_skip_string(u_char *p, u_char *last,
    ngx_uint_t *escaped);
static u_char *ngx_http_iothub_skip_value(u_char *p, u_char *last,
    ngx_uint_t *escaped);
static u_char *ngx_http_iothub_skip_container(u_char *p, u_char *last);
static ngx_uint_t ngx_http_iothub_member_is(ngx_http_iothub_member_t *member,
    ngx_str_t *name);
static size_t ngx_http_iothub_unescape_json(u_char **pos, u_char *last,
    u_char *dst);
static uint32_t ngx_http_iothub_unescape_unicode(u_char **pos, u_char *last);
static size_t ngx_http_iothub_utf8_encode(u_char *dst, uint32_t u);

static ngx_int_t ngx_http_iothub_next_pair(u_char **pos, u_char *last,
    ngx_http_iothub_pair_t *pair);
static ngx_uint_t ngx_http_iothub_pair_is(ngx_str_t *raw, ngx_str_t *name);
static ngx_int_t ngx_http_iothub_unescape_pair(ngx_pool_t *pool,
    ngx_str_t *raw, ngx_str_t *text, const char **reason);
static ngx_int_t ngx_http_iothub_unescape_byte(u_char **pos, u_char *last);
static ngx_uint_t ngx_http_iothub_utf8(ngx_str_t *text);
static size_t ngx_http_iothub_utf8_sequence(u_char *p, u_char *last);
static ngx_uint_t ngx_http_iothub_same(ngx_str_t *one, ngx_str_t *two);
static ngx_uint_t ngx_http_iothub_http_token(u_char *p, u_char *last);


static ngx_http_iothub_media_t  ngx_http_iothub_media[] = {
    { ngx_string("application/json"), NGX_HTTP_IOTHUB_JSON },
    { ngx_string("text/json"), NGX_HTTP_IOTHUB_JSON },
    { ngx_string("application/x-www-form-urlencoded"), NGX_HTTP_IOTHUB_FORM },
    { ngx_null_string, NGX_HTTP_IOTHUB_NO_BODY }
};


static ngx_str_t  ngx_http_iothub_charset = ngx_string("charset");
static ngx_str_t  ngx_http_iothub_utf_8 = ngx_string("utf-8");
static ngx_str_t  ngx_http_iothub_us_ascii = ngx_string("us-ascii");


static ngx_http_iothub_locator_prefix_t  ngx_http_iothub_prefixes[] = {
    { ngx_string("json:"), NGX_HTTP_IOTHUB_LOCATOR_JSON },
    { ngx_string("form:"), NGX_HTTP_IOTHUB_LOCATOR_FORM },
    { ngx_string("query:"), NGX_HTTP_IOTHUB_LOCATOR_QUERY },
    { ngx_string("header:"), NGX_HTTP_IOTHUB_LOCATOR_HEADER },
    { ngx_null_string, NGX_HTTP_IOTHUB_LOCATOR_NAME }
};


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


/* the characters of a token of RFC 9110, 5.6.2 */

static uint32_t  ngx_http_iothub_http_tokens[] = {
    0x00000000, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff,
    0x00000000, 0x00000000, 0x00000000, 0x00000000
};


ngx_int_t
ngx_http_iothub_webhook_format(ngx_str_t *content_type, ngx_str_t *body,
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
            && !ngx_http_iothub_same_word(&value, &ngx_http_iothub_utf_8)
            && !ngx_http_iothub_same_word(&value, &ngx_http_iothub_us_ascii))
        {
            return NGX_DECLINED;
        }
    }
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


/* sorts, as a hash of names that the sender chooses could be made to fail */

static ngx_uint_t
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


ngx_int_t
ngx_http_iothub_webhook_locator(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason)
{
    ngx_str_t                          name;
    ngx_http_iothub_locator_prefix_t  *p;

    ngx_memzero(locator, sizeof(ngx_http_iothub_locator_t));

    if (text->len == 4 && ngx_strncmp(text->data, "body", 4) == 0) {
        locator->kind = NGX_HTTP_IOTHUB_LOCATOR_BODY;
        return NGX_OK;
    }

    if (text->len && text->data[0] == '/') {
        return ngx_http_iothub_locator_pointer(pool, text, locator, reason);
    }

    name = *text;

    for (p = ngx_http_iothub_prefixes; p->prefix.len; p++) {

        if (text->len >= p->prefix.len
            && ngx_strncmp(text->data, p->prefix.data, p->prefix.len) == 0)
        {
            name.data += p->prefix.len;
            name.len -= p->prefix.len;
            break;
        }
    }

    locator->kind = p->kind;
    locator->name = name;

    if (p->kind == NGX_HTTP_IOTHUB_LOCATOR_JSON) {
        return ngx_http_iothub_locator_pointer(pool, &name, locator, reason);
    }

    if (name.len == 0) {
        *reason = "the name is empty";
        return NGX_DECLINED;
    }

    if (p->kind == NGX_HTTP_IOTHUB_LOCATOR_HEADER
        && !ngx_http_iothub_http_token(name.data, name.data + name.len))
    {
        *reason = "no header can have this name";
        return NGX_DECLINED;
    }

    if (p->kind != NGX_HTTP_IOTHUB_LOCATOR_NAME) {
        return NGX_OK;
    }

    if (ngx_strlchr(name.data, name.data + name.len, ':') != NULL) {
        *reason = "it has to be json:/pointer, form:name, query:name, "
                  "header:name, body, /pointer, or a name without a colon";
        return NGX_DECLINED;
    }

    if (ngx_strlchr(name.data, name.data + name.len, '/') != NULL) {
        *reason = "a pointer has to start with \"/\"; a name that holds one "
                  "is written \"json:/a~1b\", \"form:a/b\" or \"query:a/b\"";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_locator_pointer(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_iothub_locator_t *locator, const char **reason)
{
    u_char                  *p, *last;
    ngx_int_t                rc;
    ngx_uint_t               n;
    ngx_http_iothub_step_t  *step;

    locator->kind = NGX_HTTP_IOTHUB_LOCATOR_JSON;
    ngx_str_null(&locator->name);

    if (text->len == 0) {
        return NGX_OK;
    }

    if (text->data[0] != '/') {
        *reason = "a pointer has to start with \"/\"";
        return NGX_DECLINED;
    }

    last = text->data + text->len;
    n = 0;

    for (p = text->data; p < last; p++) {
        n += (*p == '/');
    }

    step = ngx_pcalloc(pool, n * sizeof(ngx_http_iothub_step_t));
    if (step == NULL) {
        return NGX_ERROR;
    }

    locator->steps = step;
    locator->nsteps = n;

    for (p = text->data; p < last; step++) {

        step->name.data = ++p;
        while (p < last && *p != '/') {
            p++;
        }

        step->name.len = p - step->name.data;

        rc = ngx_http_iothub_locator_step(pool, step);

        if (rc == NGX_DECLINED) {
            *reason = "\"~\" in a pointer has to be written \"~0\", and "
                      "\"/\" in a name \"~1\"";
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_locator_step(ngx_pool_t *pool, ngx_http_iothub_step_t *step)
{
    u_char  *src, *dst, *last;

    src = step->name.data;
    last = src + step->name.len;

    if (ngx_strlchr(src, last, '~') != NULL) {

        dst = ngx_pnalloc(pool, step->name.len);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        step->name.data = dst;

        for ( /* void */ ; src < last; src++) {

            if (*src != '~') {
                *dst++ = *src;
                continue;
            }

            src++;

            if (src == last || (*src != '0' && *src != '1')) {
                return NGX_DECLINED;
            }

            *dst++ = *src == '0' ? '~' : '/';
        }

        step->name.len = dst - step->name.data;
    }

    step->index = ngx_http_iothub_locator_index(&step->name);

    return NGX_OK;
}


/* digits without leading zeros, RFC 6901, 4; never "-", which is no element */

static ngx_int_t
ngx_http_iothub_locator_index(ngx_str_t *name)
{
    if (name->len > 1 && name->data[0] == '0') {
        return -1;
    }

    /* NGX_ERROR, which is -1, if it is no number or too large */

    return ngx_atoi(name->data, name->len);
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
    ngx_uint_t                i;
    ngx_http_iothub_member_t  member;

    if (wh->format != NGX_HTTP_IOTHUB_JSON) {
        return NGX_DECLINED;
    }

    ngx_memzero(&member, sizeof(ngx_http_iothub_member_t));
    member.value = wh->root;
    member.value_escaped = wh->escaped;

    for (i = 0; i < locator->nsteps; i++) {

        if (i == 0 && wh->root.data[0] == '{') {
            if (ngx_http_iothub_find_root(wh, &locator->steps[0].name,
                                          &member)
                != NGX_OK)
            {
                return NGX_DECLINED;
            }

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
    ngx_int_t                 rc;
    ngx_http_iothub_value_t   json;
    ngx_http_iothub_member_t  member;

    ngx_memzero(&json, sizeof(ngx_http_iothub_value_t));

    if (wh->format == NGX_HTTP_IOTHUB_JSON
        && ngx_http_iothub_find_root(wh, &locator->name, &member) == NGX_OK)
    {
        ngx_http_iothub_json_value(&member, &json);

        if (json.type != NGX_HTTP_IOTHUB_NULL) {
            *value = json;
            return NGX_OK;
        }
    }

    rc = ngx_http_iothub_find_form(wh, locator, value);

    if (rc == NGX_DECLINED) {
        rc = ngx_http_iothub_find_query(wh, locator, value);
    }

    /* a null is better than nothing */

    if (rc == NGX_DECLINED && json.raw.len) {
        *value = json;
        return NGX_OK;
    }

    return rc;
}


static ngx_int_t
ngx_http_iothub_find_root(ngx_http_iothub_webhook_t *wh, ngx_str_t *name,
    ngx_http_iothub_member_t *member)
{
    ngx_uint_t                 i;
    ngx_http_iothub_member_t  *members;

    members = wh->members.elts;

    for (i = 0; i < wh->members.nelts; i++) {
        if (ngx_http_iothub_member_is(&members[i], name)) {
            *member = members[i];
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
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


size_t
ngx_http_iothub_json_escape(u_char *dst, ngx_str_t *src)
{
    u_char  *last;

    last = src->data + src->len;

    if (ngx_http_iothub_plain_span(src->data, last) == last) {

        if (dst && src->len) {
            ngx_memcpy(dst, src->data, src->len);
        }

        return src->len;
    }

    if (dst == NULL) {
        return src->len + ngx_escape_json(NULL, src->data, src->len);
    }

    return (u_char *) ngx_escape_json(dst, src->data, src->len) - dst;
}


/*
 * Reads the next member or element of the object or array that pos is in,
 * with the comma before it.  NGX_OK; NGX_DONE at the end, with *pos behind
 * the bracket; NGX_ERROR if the text is no JSON.
 */

static ngx_int_t
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


static u_char *
ngx_http_iothub_skip_space(u_char *p, u_char *last)
{
    while (p < last
           && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
    {
        p++;
    }

    return p;
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


/* from the first byte of a value to behind its last one, or NULL */

static u_char *
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


static ngx_uint_t
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


/*
 * Decodes the escape at *pos into dst, at most 4 bytes, and moves behind it.
 * Returns how many bytes it is; 0 if it is none, which validated text
 * does not hold.
 */

static size_t
ngx_http_iothub_unescape_json(u_char **pos, u_char *last, u_char *dst)
{
    u_char    *p;
    uint32_t   u;

    p = *pos + 1;

    if (p >= last) {
        return 0;
    }

    *pos = p + 1;

    switch (*p) {

    case '"':
    case '\\':
    case '/':
        *dst = *p;
        return 1;

    case 'b':
        *dst = '\b';
        return 1;

    case 'f':
        *dst = '\f';
        return 1;

    case 'n':
        *dst = LF;
        return 1;

    case 'r':
        *dst = CR;
        return 1;

    case 't':
        *dst = '\t';
        return 1;

    case 'u':
        u = ngx_http_iothub_unescape_unicode(pos, last);
        return ngx_http_iothub_utf8_encode(dst, u);

    default:
        return 0;
    }
}


/* reads the four hex digits, and a second escape; 0 is no character here */

static uint32_t
ngx_http_iothub_unescape_unicode(u_char **pos, u_char *last)
{
    u_char     *p;
    ngx_int_t   u, low;

    p = *pos;

    if (last - p < 4) {
        return 0;
    }

    u = ngx_hextoi(p, 4);
    p += 4;

    if (u >= 0xd800 && u <= 0xdbff) {

        if (last - p < 6 || p[0] != '\\' || p[1] != 'u') {
            return 0;
        }

        low = ngx_hextoi(p + 2, 4);
        p += 6;

        if (low < 0xdc00 || low > 0xdfff) {
            return 0;
        }

        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);

    } else if (u == NGX_ERROR || (u >= 0xdc00 && u <= 0xdfff)) {
        return 0;
    }

    *pos = p;

    return (uint32_t) u;
}


static size_t
ngx_http_iothub_utf8_encode(u_char *dst, uint32_t u)
{
    if (u == 0) {
        return 0;
    }

    if (u < 0x80) {
        dst[0] = (u_char) u;
        return 1;
    }

    if (u < 0x800) {
        dst[0] = (u_char) (0xc0 | (u >> 6));
        dst[1] = (u_char) (0x80 | (u & 0x3f));
        return 2;
    }

    if (u < 0x10000) {
        dst[0] = (u_char) (0xe0 | (u >> 12));
        dst[1] = (u_char) (0x80 | ((u >> 6) & 0x3f));
        dst[2] = (u_char) (0x80 | (u & 0x3f));
        return 3;
    }

    dst[0] = (u_char) (0xf0 | (u >> 18));
    dst[1] = (u_char) (0x80 | ((u >> 12) & 0x3f));
    dst[2] = (u_char) (0x80 | ((u >> 6) & 0x3f));
    dst[3] = (u_char) (0x80 | (u & 0x3f));

    return 4;
}


/* takes the next name=value off the text, undecoded; NGX_DONE at the end */

static ngx_int_t
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


/* compares without decoding into memory; a broken name is no name */

static ngx_uint_t
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


/*
 * Decodes a name or a value of a form or a query string and checks what it
 * is.  Memory is taken from the pool only if there is something to decode.
 * NGX_OK, NGX_DECLINED with *reason, or NGX_ERROR (no memory).
 */

static ngx_int_t
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


/*
 * Is it UTF-8 (RFC 3629: no surrogates, nothing overlong)?  nginx's own
 * ngx_utf8_decode() lets continuation bytes from 0xc0 up pass.
 */

static ngx_uint_t
ngx_http_iothub_utf8(ngx_str_t *text)
{
    u_char    *p, *last;
    size_t     n;
    uint64_t   word;

    p = text->data;
    last = p + text->len;

    while (p < last) {

        if (*p < 0x80) {

            while (last - p >= 8) {
                ngx_memcpy(&word, p, 8);

                if (word & 0x8080808080808080ULL) {
                    break;
                }

                p += 8;
            }

            while (p < last && *p < 0x80) {
                p++;
            }

            continue;
        }

        n = ngx_http_iothub_utf8_sequence(p, last);
        if (n == 0) {
            return 0;
        }

        p += n;
    }

    return 1;
}


/* the length of the character of two bytes or more at p, or 0 */

static size_t
ngx_http_iothub_utf8_sequence(u_char *p, u_char *last)
{
    u_char  low, high;
    size_t  n, i;

    /* the second byte's range keeps overlong forms and surrogates out */

    low = 0x80;
    high = 0xbf;

    if (*p >= 0xc2 && *p <= 0xdf) {
        n = 2;

    } else if (*p >= 0xe0 && *p <= 0xef) {
        n = 3;
        low = *p == 0xe0 ? 0xa0 : 0x80;
        high = *p == 0xed ? 0x9f : 0xbf;

    } else if (*p >= 0xf0 && *p <= 0xf4) {
        n = 4;
        low = *p == 0xf0 ? 0x90 : 0x80;
        high = *p == 0xf4 ? 0x8f : 0xbf;

    } else {
        return 0;
    }

    if ((size_t) (last - p) < n || p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return n;
}


static ngx_uint_t
ngx_http_iothub_same(ngx_str_t *one, ngx_str_t *two)
{
    return one->len == two->len
           && (one->len == 0
               || ngx_memcmp(one->data, two->data, one->len) == 0);
}


static ngx_uint_t
ngx_http_iothub_http_token(u_char *p, u_char *last)
{
    if (p == last) {
        return 0;
    }

    while (p < last) {
        if (!(ngx_http_iothub_http_tokens[*p >> 5]
              & ((uint32_t) 1 << (*p & 0x1f))))
        {
            return 0;
        }

        p++;
    }

    return 1;
}
