
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_plain.h"


/* no number of so many characters, without an exponent, is infinite */
#define NGX_HTTP_IOTHUB_PLAIN_NUMBER  32


/* of what a compiler can compare at once on any machine */

typedef u_char  ngx_http_iothub_plain_bytes_t __attribute__((vector_size(16)));


/* what is open at a byte of the text, from the outermost to the innermost */

typedef struct {
    u_char      *last;
    ngx_uint_t   depth;
    ngx_uint_t   nnames;
    u_char       close[NGX_HTTP_IOTHUB_PLAIN_DEPTH];   /* } or ] */
    ngx_uint_t   first[NGX_HTTP_IOTHUB_PLAIN_DEPTH];   /* of its names */
    ngx_str_t    names[NGX_HTTP_IOTHUB_PLAIN_NAMES];
    ngx_uint_t   escaped;                              /* the last string */

    ngx_http_iothub_member_t  *members;                /* of the root */
    ngx_uint_t                 nmembers;
} ngx_http_iothub_plain_t;


/* each returns what follows, or NULL if that is not plain */

static u_char *ngx_http_iothub_plain_open(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_next(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_name(ngx_http_iothub_plain_t *pl,
    u_char *p);
static void ngx_http_iothub_plain_named(ngx_http_iothub_plain_t *pl,
    ngx_str_t *name, u_char *value);
static u_char *ngx_http_iothub_plain_scalar(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_string(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_number(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_digits(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_space(u_char *p, u_char *last);


ngx_uint_t
ngx_http_iothub_plain_json(ngx_str_t *text,
    ngx_http_iothub_member_t *members, ngx_uint_t *n)
{
    u_char                   *p;
    ngx_http_iothub_plain_t   pl;

    pl.last = text->data + text->len;
    pl.depth = 0;
    pl.nnames = 0;
    pl.members = members;
    pl.nmembers = 0;

    p = ngx_http_iothub_plain_space(text->data, pl.last);

    if (p == pl.last || (*p != '{' && *p != '[')) {
        return 0;
    }

    /* p is where a value starts */

    while (p && p < pl.last) {

        if (*p == '{' || *p == '[') {
            p = ngx_http_iothub_plain_open(&pl, p);

        } else {
            p = ngx_http_iothub_plain_scalar(&pl, p);

            if (p) {
                p = ngx_http_iothub_plain_next(&pl, p);
            }
        }

        if (p && pl.depth == 0) {

            if (members) {
                *n = pl.nmembers;
            }

            return ngx_http_iothub_plain_space(p, pl.last) == pl.last;
        }
    }

    return 0;
}


/* to the first value of an object or an array, or behind an empty one */

static u_char *
ngx_http_iothub_plain_open(ngx_http_iothub_plain_t *pl, u_char *p)
{
    if (pl->depth == NGX_HTTP_IOTHUB_PLAIN_DEPTH) {
        return NULL;
    }

    pl->close[pl->depth] = (*p == '{') ? '}' : ']';
    pl->first[pl->depth] = pl->nnames;
    pl->depth++;

    p = ngx_http_iothub_plain_space(p + 1, pl->last);

    if (p == pl->last) {
        return NULL;
    }

    if (*p == pl->close[pl->depth - 1]) {
        return ngx_http_iothub_plain_next(pl, p);
    }

    return pl->close[pl->depth - 1] == '}' ? ngx_http_iothub_plain_name(pl, p)
                                           : p;
}


/* from behind a value to the next one, out of what is closed after it */

static u_char *
ngx_http_iothub_plain_next(ngx_http_iothub_plain_t *pl, u_char *p)
{
    ngx_http_iothub_member_t  *member;

    for ( ;; ) {

        if (pl->depth == 1 && pl->nmembers) {
            member = &pl->members[pl->nmembers - 1];
            member->value.len = p - member->value.data;
        }

        p = ngx_http_iothub_plain_space(p, pl->last);

        if (p == pl->last) {
            return NULL;
        }

        if (*p == pl->close[pl->depth - 1]) {
            p++;
            pl->depth--;
            pl->nnames = pl->first[pl->depth];

            if (pl->depth == 0) {
                return p;
            }

            continue;
        }

        if (*p != ',') {
            return NULL;
        }

        p = ngx_http_iothub_plain_space(p + 1, pl->last);

        return pl->close[pl->depth - 1] == '}'
               ? ngx_http_iothub_plain_name(pl, p) : p;
    }
}


/* a name that none before it in the object is, to its value */

static u_char *
ngx_http_iothub_plain_name(ngx_http_iothub_plain_t *pl, u_char *p)
{
    u_char      *end;
    ngx_str_t   *name;
    ngx_uint_t   i;

    if (p == pl->last || *p++ != '"'
        || pl->nnames == NGX_HTTP_IOTHUB_PLAIN_NAMES)
    {
        return NULL;
    }

    end = ngx_http_iothub_plain_string(pl, p);

    /* escapes are other ways to write a name */

    if (end == NULL || pl->escaped) {
        return NULL;
    }

    name = &pl->names[pl->nnames];
    name->data = p;
    name->len = end - 1 - p;

    for (i = pl->first[pl->depth - 1]; i < pl->nnames; i++) {
        if (pl->names[i].len == name->len
            && ngx_memcmp(pl->names[i].data, name->data, name->len) == 0)
        {
            return NULL;
        }
    }

    pl->nnames++;

    p = ngx_http_iothub_plain_space(end, pl->last);

    if (p == pl->last || *p != ':') {
        return NULL;
    }

    p = ngx_http_iothub_plain_space(p + 1, pl->last);

    if (pl->members && pl->depth == 1) {
        ngx_http_iothub_plain_named(pl, name, p);
    }

    return p;
}


static void
ngx_http_iothub_plain_named(ngx_http_iothub_plain_t *pl, ngx_str_t *name,
    u_char *value)
{
    ngx_http_iothub_member_t  *member;

    member = &pl->members[pl->nmembers++];
    member->name = *name;
    member->name_escaped = 0;
    member->value.data = value;
    member->value_escaped = 0;
}


static u_char *
ngx_http_iothub_plain_scalar(ngx_http_iothub_plain_t *pl, u_char *p)
{
    u_char      *last;
    ngx_uint_t   i;

    static ngx_str_t  words[] = {
        ngx_string("true"), ngx_string("false"), ngx_string("null")
    };

    last = pl->last;

    if (*p == '"') {
        p = ngx_http_iothub_plain_string(pl, p + 1);

        if (pl->depth == 1 && pl->nmembers) {
            pl->members[pl->nmembers - 1].value_escaped = pl->escaped;
        }

        return p;
    }

    if (*p < 'a') {
        return ngx_http_iothub_plain_number(p, last);
    }

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((size_t) (last - p) >= words[i].len
            && ngx_memcmp(p, words[i].data, words[i].len) == 0)
        {
            return p + words[i].len;
        }
    }

    return NULL;
}


static u_char *
ngx_http_iothub_plain_string(ngx_http_iothub_plain_t *pl, u_char *p)
{
    pl->escaped = 0;

    for ( ;; ) {
        p = ngx_http_iothub_plain_span(p, pl->last);

        if (p == pl->last) {
            return NULL;
        }

        switch (*p++) {

        case '"':
            return p;

        case '\\':
            if (p == pl->last || *p == '\0'
                || ngx_strchr("\"\\/bfnrt", *p) == NULL)
            {
                return NULL;
            }

            pl->escaped = 1;
            p++;
            break;

        case 0x7f:
            break;

        default:
            return NULL;
        }
    }
}


u_char *
ngx_http_iothub_plain_span(u_char *p, u_char *last)
{
    uint64_t                       found[2];
    ngx_http_iothub_plain_bytes_t  bytes;

    while (last - p >= (ssize_t) sizeof(bytes)) {

        ngx_memcpy(&bytes, p, sizeof(bytes));

        /* of each byte that is looked for, all bits are set */

        bytes = (ngx_http_iothub_plain_bytes_t)
                ((bytes < ' ') | (bytes > '~')
                 | (bytes == '"') | (bytes == '\\'));

        ngx_memcpy(found, &bytes, sizeof(bytes));

        if (found[0] | found[1]) {
#if (NGX_HAVE_LITTLE_ENDIAN)
            return p + (found[0] ? __builtin_ctzll(found[0]) / 8
                                 : 8 + __builtin_ctzll(found[1]) / 8);
#else
            break;
#endif
        }

        p += sizeof(bytes);
    }

    while (p < last && *p >= ' ' && *p <= '~' && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
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


static u_char *
ngx_http_iothub_plain_space(u_char *p, u_char *last)
{
    while (p < last && (*p == ' ' || *p == LF || *p == CR || *p == '\t')) {
        p++;
    }

    return p;
}
