
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * form: forms and query strings, pair by pair.
 *
 * Pure: what is handed out are slices of the text, or decoded text from the
 * pool.
 */


#ifndef _NGX_HTTP_IOTHUB_FORM_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_FORM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* a form with more pairs is malformed */
#define NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS  1000


typedef struct {
    ngx_str_t                   name;       /* a form's: decoded */
    ngx_str_t                   value;      /* as sent */
    ngx_str_t                   text;       /* decoded */
} ngx_http_iothub_pair_t;


/*
 * Takes the next name=value off the text, undecoded.  NGX_OK, or NGX_DONE at
 * the end.
 */

ngx_int_t ngx_http_iothub_next_pair(u_char **pos, u_char *last,
    ngx_http_iothub_pair_t *pair);

/*
 * Is this undecoded name the decoded one?  Compares without decoding into
 * memory; a broken name is no name.
 */

ngx_uint_t ngx_http_iothub_pair_is(ngx_str_t *raw, ngx_str_t *name);

/*
 * Decodes a name or a value of a form or a query string and checks what it
 * is.  Memory is taken from the pool only if there is something to decode.
 * NGX_OK, NGX_DECLINED with *reason, or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_unescape_pair(ngx_pool_t *pool,
    ngx_str_t *raw, ngx_str_t *text, const char **reason);

/*
 * Have two of at most NGX_HTTP_IOTHUB_WEBHOOK_MAX_PAIRS pairs one decoded
 * name?
 */

ngx_uint_t ngx_http_iothub_form_duplicates(
    ngx_http_iothub_pair_t *pairs, ngx_uint_t n);


#endif /* _NGX_HTTP_IOTHUB_FORM_H_INCLUDED_ */
