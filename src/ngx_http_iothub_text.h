
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * text: what texts are made of: blanks, tokens, UTF-8, escapes of JSON.
 *
 * Pure, and without memory.
 */


#ifndef _NGX_HTTP_IOTHUB_TEXT_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_TEXT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* the same bytes? */

ngx_uint_t ngx_http_iothub_same(ngx_str_t *one, ngx_str_t *two);

/* is it a token of RFC 9110, 5.6.2?  None is empty. */

ngx_uint_t ngx_http_iothub_http_token(u_char *p, u_char *last);

/*
 * Is it the name of a header, as a configuration may name one?  "$" is legal
 * in it, but says that somebody thinks of a variable.
 */

ngx_uint_t ngx_http_iothub_header_name(ngx_str_t *name);

/* the first byte from p on that is no white space of JSON, or last */

u_char *ngx_http_iothub_skip_space(u_char *p, u_char *last);

/*
 * Escapes a text for use between the quotes of a JSON string: the quote, the
 * backslash and control characters.  dst NULL: returns the size of the
 * result in bytes.  Otherwise writes it to dst, which has that size, and
 * returns the size.
 */

size_t ngx_http_iothub_json_escape(u_char *dst, ngx_str_t *src);

/*
 * Decodes the escape of JSON at *pos into dst, at most 4 bytes, and moves
 * behind it.  Returns how many bytes it is; 0 if it is none, which validated
 * text does not hold.
 */

size_t ngx_http_iothub_unescape_json(u_char **pos, u_char *last,
    u_char *dst);

/*
 * Is it UTF-8 (RFC 3629: no surrogates, nothing overlong)?  nginx's own
 * ngx_utf8_decode() lets continuation bytes from 0xc0 up pass.
 */

ngx_uint_t ngx_http_iothub_utf8(ngx_str_t *text);


#endif /* _NGX_HTTP_IOTHUB_TEXT_H_INCLUDED_ */
