
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * signature: did a holder of the key sign this webhook?
 *
 * The schemes of iothub_signature are rows of one table.  A row says in which
 * headers the signatures and what is signed with them stand, and what the
 * lines of the key file are; the rest is the same for all: HMAC-SHA256 over
 * the body, byte for byte, preceded by the id and the time if the scheme has
 * them, each followed by a dot.  Bytes in, values out: this room knows no
 * request and logs nothing.
 */

#ifndef _NGX_HTTP_IOTHUB_SIGNATURE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SIGNATURE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_IOTHUB_SIGNATURE_VALUE = 0,    /* the signatures */
    NGX_HTTP_IOTHUB_SIGNATURE_ID,
    NGX_HTTP_IOTHUB_SIGNATURE_TIME,
    NGX_HTTP_IOTHUB_SIGNATURE_HEADERS
} ngx_http_iothub_signature_header_e;


typedef struct ngx_http_iothub_signature_scheme_s
    ngx_http_iothub_signature_scheme_t;


/* A scheme and what iothub_signature says about it. */

typedef struct {
    const ngx_http_iothub_signature_scheme_t  *scheme;

    /* names in lower case; empty: the scheme has none, or it is not set yet */

    ngx_str_t     headers[NGX_HTTP_IOTHUB_SIGNATURE_HEADERS];

    ngx_str_t     prefix;       /* before each signature */
    ngx_uint_t    base64;       /* or hexadecimal digits */
    time_t        tolerance;    /* seconds, both ways; 0: no time is signed */
    ngx_array_t   keys;         /* ngx_str_t, as HMAC takes them */

    ngx_uint_t    given;        /* bits: parameters that were set */
} ngx_http_iothub_signature_t;


/*
 * What one webhook shows.  Zeroed by the caller, who sets values, and may
 * read the last three where a function returned NGX_DECLINED.
 */

typedef struct {
    ngx_str_t    *values[NGX_HTTP_IOTHUB_SIGNATURE_HEADERS];  /* or NULL */

    ngx_str_t     time;         /* as it was sent, which is what is signed */
    void        **macs;         /* one for each key */

    const char   *fault;        /* "no", "wrong signature in", ... */
    ngx_str_t    *header;       /* in which header */
    time_t        off;          /* seconds: > 0 too old, < 0 in the future */
} ngx_http_iothub_signature_shown_t;


/* What to write as a scheme, for a message. */
extern const char  ngx_http_iothub_signature_names[];

/*
 * Finds the scheme of this name and sets signature to its defaults, without
 * keys.  NGX_OK; NGX_DECLINED if there is none; NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_signature_init(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *name);

/*
 * Sets header=, prefix=, encoding= or tolerance=, the text as it stands in
 * the configuration, which is kept.  NGX_OK; NGX_DECLINED with *reason, NULL
 * for another parameter or one given before; NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_signature_set(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *parameter,
    const char **reason);

/*
 * Reads the text of the key file into signature->keys, copies allocated from
 * pool.  Returns as ngx_http_iothub_sender_parse_secrets() does.
 */

ngx_int_t ngx_http_iothub_signature_parse_keys(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *text,
    const char **reason, ngx_uint_t *line);

/*
 * What the headers alone tell: is all there, and is the time, compared to
 * now, within the tolerance?  NGX_OK; NGX_DECLINED with fault, header, and
 * off if it was the time.
 */

ngx_int_t ngx_http_iothub_signature_show(
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, time_t now);

/*
 * After that, the body: begin, update for each part of it in order, check,
 * end.  After begin, end must be called, whatever begin returned.
 *
 * begin and update: NGX_OK, or NGX_ERROR if there is no memory or OpenSSL
 * failed.  check: NGX_OK if one of the signatures was made with one of the
 * keys; all are compared, always, in constant time.  NGX_DECLINED with fault
 * and header; NGX_ERROR.  Only NGX_OK lets in.
 */

ngx_int_t ngx_http_iothub_signature_begin(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown);
ngx_int_t ngx_http_iothub_signature_update(
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, u_char *data, size_t len);
ngx_int_t ngx_http_iothub_signature_check(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown);
void ngx_http_iothub_signature_end(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown);


#endif /* _NGX_HTTP_IOTHUB_SIGNATURE_H_INCLUDED_ */
