
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * keys: the keys of a shared access policy, from the text of a file.
 *
 * Pure: bytes in, values out.  A reason given back is a constant text without
 * any byte of the file: it can be logged, and reads well after "FILE:LINE: ".
 * All results are copies, so callers wipe the file's bytes with
 * ngx_explicit_memzero() when done.
 */


#ifndef _NGX_HTTP_IOTHUB_KEYS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_KEYS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* the primary and the secondary */

#define NGX_HTTP_IOTHUB_KEYS  2


/*
 * What a connection string file says.  Everything is allocated from the
 * pool given to the parser; keys are decoded, the primary comes first.
 * The host name is as written: its syntax is for the hub room to check.
 */

typedef struct {
    ngx_str_t   hostname;
    ngx_str_t   policy;
    ngx_str_t   keys[NGX_HTTP_IOTHUB_KEYS];
    ngx_uint_t  nkeys;
} ngx_http_iothub_keys_connection_t;


/*
 * Takes the next line that says something off *text: blank lines, lines
 * that start with # and a byte order mark are skipped, blanks around the
 * line and CR are cut.  *n counts lines from 1 and must be 0 at the start.
 * The line points into the text.  NGX_OK, or NGX_DONE at the end.
 */

ngx_int_t ngx_http_iothub_keys_next_line(ngx_str_t *text, ngx_str_t *line,
    ngx_uint_t *n);

/*
 * Decodes base64 with its padding; no blanks, no URL alphabet.  Bits that
 * the padding leaves over are ignored, as most decoders do.
 * NGX_OK and *key allocated from the pool; NGX_DECLINED if the text is empty
 * or not base64; NGX_ERROR if there is no memory.
 */

ngx_int_t ngx_http_iothub_keys_decode(ngx_pool_t *pool, ngx_str_t *base64,
    ngx_str_t *key);

/*
 * Reads the text of a key_file: one key a line, the primary, then optionally
 * the secondary.  A secondary that equals the primary is left out.
 *
 * NGX_OK: keys[] and *nkeys (1 or 2) are set, keys are from the pool.
 * NGX_DECLINED: *reason is set and *line is the line that is wrong, or 0
 * if it is the file as a whole.  NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_keys_parse(ngx_pool_t *pool, ngx_str_t *text,
    ngx_str_t keys[NGX_HTTP_IOTHUB_KEYS], ngx_uint_t *nkeys,
    const char **reason, ngx_uint_t *line);

/*
 * Reads the text of a connection_string_file: a line
 * HostName=...;SharedAccessKeyName=...;SharedAccessKey=... and optionally a
 * second one with the secondary key of the same host and policy.  Parts may
 * come in any order, their names in any case.  A part with another name is
 * refused: each of them says that the string is not for this use.
 *
 * Returns as ngx_http_iothub_keys_parse() does.
 */

ngx_int_t ngx_http_iothub_keys_parse_connection_string(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_iothub_keys_connection_t *connection,
    const char **reason, ngx_uint_t *line);


#endif /* _NGX_HTTP_IOTHUB_KEYS_H_INCLUDED_ */
