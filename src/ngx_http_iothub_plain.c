
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_plain.h"


/* no number of so many characters, without an exponent, is infinite */
#define NGX_HTTP_IOTHUB_PLAIN_NUMBER  32

/* times a byte: eight of it */
#define NGX_HTTP_IOTHUB_PLAIN_EACH    0x0101010101010101ull


/* what is open at a byte of the text, from the outermost to the innermost */

typedef struct {
    u_char      *last;
    ngx_uint_t   depth;
    ngx_uint_t   nnames;
    u_char       close[NGX_HTTP_IOTHUB_PLAIN_DEPTH];   /* } or ] */
    ngx_uint_t   first[NGX_HTTP_IOTHUB_PLAIN_DEPTH];   /* of its names */
    ngx_str_t    names[NGX_HTTP_IOTHUB_PLAIN_NAMES];
} ngx_http_iothub_plain_t;


/* each returns what follows, or NULL if that is not plain */

static u_char *ngx_http_iothub_plain_open(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_next(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_name(ngx_http_iothub_plain_t *pl,
    u_char *p);
static u_char *ngx_http_iothub_plain_scalar(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_string(u_char *p, u_char *last);
static ngx_uint_t ngx_http_iothub_plain_eight(u_char *p);
static u_char *ngx_http_iothub_plain_number(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_digits(u_char *p, u_char *last);
static u_char *ngx_http_iothub_plain_space(u_char *p, u_char *last);


ngx_uint_t
ngx_http_iothub_plain_json(ngx_str_t *text)
{
    u_char                   *p;
    ngx_http_iothub_plain_t   pl;

    pl.last = text->data + text->len;
    pl.depth = 0;
    pl.nnames = 0;

    p = ngx_http_iothub_plain_space(text->data, pl.last);

    if (p == pl.last || (*p != '{' && *p != '[')) {
        return 0;
    }

    /* p is where a value starts */

    while (p && p < pl.last) {

        if (*p == '{' || *p == '[') {
            p = ngx_http_iothub_plain_open(&pl, p);

        } else {
            p = ngx_http_iothub_plain_scalar(p, pl.last);

            if (p) {
                p = ngx_http_iothub_plain_next(&pl, p);
            }
        }

        if (p && pl.depth == 0) {
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
    for ( ;; ) {
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

    end = ngx_http_iothub_plain_string(p, pl->last);
    if (end == NULL) {
        return NULL;
    }

    name = &pl->names[pl->nnames];
    name->data = p;
    name->len = end - 1 - p;

    /* escapes are other ways to write a name */

    if (ngx_strlchr(p, end, '\\')) {
        return NULL;
    }

    for (i = pl->first[pl->depth - 1]; i < pl->nnames; i++) {
        if (pl->names[i].len == name->len
            && ngx_memcmp(pl->names[i].data, name->data, name->len) == 0)
        {
            return NULL;
        }
    }

    pl->nnames++;

    p = ngx_http_iothub_plain_space(end, pl->last);

    return (p < pl->last && *p == ':')
           ? ngx_http_iothub_plain_space(p + 1, pl->last) : NULL;
}


static u_char *
ngx_http_iothub_plain_scalar(u_char *p, u_char *last)
{
    ngx_uint_t  i;

    static ngx_str_t  words[] = {
        ngx_string("true"), ngx_string("false"), ngx_string("null")
    };

    if (*p == '"') {
        return ngx_http_iothub_plain_string(p + 1, last);
    }

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((size_t) (last - p) >= words[i].len
            && ngx_memcmp(p, words[i].data, words[i].len) == 0)
        {
            return p + words[i].len;
        }
    }

    return ngx_http_iothub_plain_number(p, last);
}


static u_char *
ngx_http_iothub_plain_string(u_char *p, u_char *last)
{
    while (p < last) {

        if ((size_t) (last - p) >= sizeof(uint64_t)
            && ngx_http_iothub_plain_eight(p))
        {
            p += sizeof(uint64_t);
            continue;
        }

        if (*p == '"') {
            return p + 1;
        }

        if (*p < ' ' || *p > 0x7f) {
            return NULL;
        }

        if (*p++ == '\\') {

            if (p == last || *p == '\0'
                || ngx_strchr("\"\\/bfnrt", *p) == NULL)
            {
                return NULL;
            }

            p++;
        }
    }

    return NULL;
}


/*
 * Are the eight bytes ASCII without controls, quotes and backslashes?  By the
 * borrows of a subtraction, which sets the highest bit of each byte that was
 * less; a byte that a borrow comes from is less itself, so that no error goes
 * unseen.
 */

static ngx_uint_t
ngx_http_iothub_plain_eight(u_char *p)
{
    uint64_t  bytes, quote, backslash;

    ngx_memcpy(&bytes, p, sizeof(uint64_t));

    quote = bytes ^ NGX_HTTP_IOTHUB_PLAIN_EACH * '"';
    backslash = bytes ^ NGX_HTTP_IOTHUB_PLAIN_EACH * '\\';

    return ((bytes
             | (bytes - NGX_HTTP_IOTHUB_PLAIN_EACH * ' ')
             | (quote - NGX_HTTP_IOTHUB_PLAIN_EACH)
             | (backslash - NGX_HTTP_IOTHUB_PLAIN_EACH))
            & NGX_HTTP_IOTHUB_PLAIN_EACH * 0x80)
           == 0;
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
