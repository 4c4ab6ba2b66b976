
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * plain: JSON of which one look tells that it is JSON.
 *
 * Most webhooks are ASCII, and neither deep nor wide.  jansson takes more
 * time to build a tree of such a text, which nobody reads, than all the rest
 * of a webhook takes: it is asked about what is not so plain.
 */


#ifndef _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_member.h"


/* objects and arrays within each other, and names in all open objects */
#define NGX_HTTP_IOTHUB_PLAIN_DEPTH  8
#define NGX_HTTP_IOTHUB_PLAIN_NAMES  64


/*
 * 1: jansson takes the text, with JSON_REJECT_DUPLICATES and
 * JSON_DECODE_INT_AS_REAL too; it is an object or an array within the bounds
 * above, of strings of ASCII without \u, names without escapes, numbers
 * without an exponent that any double holds, true, false and null.  0:
 * jansson is to be asked; it says nothing about the text.  Reads each byte
 * once and allocates nothing.
 *
 * members, if not NULL, has room for NGX_HTTP_IOTHUB_PLAIN_NAMES: then they
 * and *n become those of a plain text that is an object, none of an array.
 */

ngx_uint_t ngx_http_iothub_plain_json(ngx_str_t *text,
    ngx_http_iothub_member_t *members, ngx_uint_t *n);

/*
 * The first byte from p on that is a quote, a backslash, a control character
 * (0x7f is one) or not ASCII; last if there is none.  Sixteen bytes at once.
 */

u_char *ngx_http_iothub_plain_span(u_char *p, u_char *last);


#endif /* _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_ */
