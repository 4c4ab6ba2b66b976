
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * plain: JSON of which one look tells that it is JSON.
 *
 * Most webhooks are one flat object of ASCII text.  jansson takes a third of
 * a webhook's time to build a tree of it that nobody reads, so it is asked
 * only about what is not so plain.
 */


#ifndef _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* members that are compared with each other for duplicates, at most */
#define NGX_HTTP_IOTHUB_PLAIN_MEMBERS  16


/*
 * 1: jansson takes the text, with JSON_REJECT_DUPLICATES and
 * JSON_DECODE_INT_AS_REAL too; it is an object of at most so many members,
 * whose values are strings of ASCII without \u, numbers without an exponent
 * that any double holds, true, false or null.  0: jansson is to be asked; it
 * says nothing about the text.  Reads each byte once and allocates nothing.
 */

ngx_uint_t ngx_http_iothub_plain_json(ngx_str_t *text);


#endif /* _NGX_HTTP_IOTHUB_PLAIN_H_INCLUDED_ */
