
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * sender: is this sender allowed?
 *
 * Decides from bytes alone: what the sender showed and what the operator's
 * file accepts.  It knows no request, logs nothing, and keeps secrets only
 * as their SHA-256 digests.
 */


#ifndef _NGX_HTTP_IOTHUB_SENDER_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SENDER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Reads the text of an iothub_secret file: every line that is neither blank
 * nor starts with # is an accepted value, without the blanks around it.
 *
 * secrets is an initialised array of ngx_str_t; for each value its digest is
 * pushed, allocated from pool.  The caller owns the text and
 * wipes it.
 *
 * NGX_OK; NGX_DECLINED with *reason, a constant text without any byte of the
 * file, and *line, 0 if it is the file as a whole; NGX_ERROR if there is no
 * memory or OpenSSL failed.
 */

ngx_int_t ngx_http_iothub_sender_parse_secrets(ngx_pool_t *pool,
    ngx_str_t *text, ngx_array_t *secrets, const char **reason,
    ngx_uint_t *line);

/*
 * The same for any file of secrets: each accepted line is handed to add,
 * which pushes what it makes of it and returns as the parser does.
 */

typedef ngx_int_t (*ngx_http_iothub_sender_add_pt)(ngx_pool_t *pool,
    ngx_array_t *secrets, ngx_str_t *value, const char **reason);

ngx_int_t ngx_http_iothub_sender_parse_lines(ngx_pool_t *pool,
    ngx_str_t *text, ngx_array_t *secrets, ngx_http_iothub_sender_add_pt add,
    const char **reason, ngx_uint_t *line);

/*
 * Is value one of the secrets?  All are compared, always, by digest: the
 * time says neither how much of the value was right, nor which line it was.
 *
 * NGX_OK; NGX_DECLINED if it is none of them, or value is NULL or empty (the
 * sender showed nothing); NGX_ERROR if OpenSSL failed.  Only NGX_OK lets in.
 */

ngx_int_t ngx_http_iothub_sender_check_secret(ngx_array_t *secrets,
    ngx_str_t *value);


#endif /* _NGX_HTTP_IOTHUB_SENDER_H_INCLUDED_ */
