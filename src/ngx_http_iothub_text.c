
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_text.h"
#include "ngx_http_iothub_plain.h"


static uint32_t ngx_http_iothub_unescape_unicode(u_char **pos, u_char *last);
static size_t ngx_http_iothub_utf8_encode(u_char *dst, uint32_t u);
static size_t ngx_http_iothub_utf8_sequence(u_char *p, u_char *last);


/* the characters of a token of RFC 9110, 5.6.2 */

static uint32_t  ngx_http_iothub_http_tokens[] = {
    0x00000000, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff,
    0x00000000, 0x00000000, 0x00000000, 0x00000000
};


ngx_uint_t
ngx_http_iothub_same(ngx_str_t *one, ngx_str_t *two)
{
    return one->len == two->len
           && (one->len == 0
               || ngx_memcmp(one->data, two->data, one->len) == 0);
}


ngx_uint_t
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


ngx_uint_t
ngx_http_iothub_header_name(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (ch <= ' ' || ch >= 0x7f || ch == ':' || ch == '$') {
            return 0;
        }
    }

    return name->len != 0;
}


u_char *
ngx_http_iothub_skip_space(u_char *p, u_char *last)
{
    while (p < last
           && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
    {
        p++;
    }

    return p;
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


size_t
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


ngx_uint_t
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
