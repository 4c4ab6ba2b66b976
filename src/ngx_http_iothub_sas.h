
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * sas: a hub's keys and the tokens signed with them.
 *
 * Reads the files that hold a shared access policy's keys, signs SAS tokens
 * and digests bytes.  Pure: bytes in, values out; it reads no files, logs
 * nothing and keeps nothing but a digest's context.  With sender and
 * signature, the only room that knows OpenSSL.
 *
 * A reason given back is a constant text without any byte of the file: it can
 * be logged, and reads well after "FILE:LINE: ".  All results are copies, so
 * callers wipe the file's bytes with ngx_explicit_memzero() when done.
 */


#ifndef _NGX_HTTP_IOTHUB_SAS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SAS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_HTTP_IOTHUB_SAS_KEYS        2
#define NGX_HTTP_IOTHUB_SAS_SHA256_LEN  32


/*
 * What a connection string file says.  Everything is allocated from the
 * pool given to the parser; keys are decoded, the primary comes first.
 * The host name is as written: its syntax is for the hub room to check.
 */

typedef struct {
    ngx_str_t   hostname;
    ngx_str_t   policy;
    ngx_str_t   keys[NGX_HTTP_IOTHUB_SAS_KEYS];
    ngx_uint_t  nkeys;
} ngx_http_iothub_sas_connection_t;


/*
 * Takes the next line that says something off *text: blank lines, lines
 * that start with # and a byte order mark are skipped, blanks around the
 * line and CR are cut.  *n counts lines from 1 and must be 0 at the start.
 * The line points into the text.  NGX_OK, or NGX_DONE at the end.
 */

ngx_int_t ngx_http_iothub_sas_next_line(ngx_str_t *text, ngx_str_t *line,
    ngx_uint_t *n);

/*
 * Decodes base64 with its padding; no blanks, no URL alphabet.  Bits that
 * the padding leaves over are ignored, as most decoders do.
 * NGX_OK and *key allocated from the pool; NGX_DECLINED if the text is empty
 * or not base64; NGX_ERROR if there is no memory.
 */

ngx_int_t ngx_http_iothub_sas_decode_key(ngx_pool_t *pool, ngx_str_t *base64,
    ngx_str_t *key);

/*
 * Reads the text of a key_file: one key a line, the primary, then optionally
 * the secondary.  A secondary that equals the primary is left out.
 *
 * NGX_OK: keys[] and *nkeys (1 or 2) are set, keys are from the pool.
 * NGX_DECLINED: *reason is set and *line is the line that is wrong, or 0
 * if it is the file as a whole.  NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_sas_parse_keys(ngx_pool_t *pool, ngx_str_t *text,
    ngx_str_t keys[NGX_HTTP_IOTHUB_SAS_KEYS], ngx_uint_t *nkeys,
    const char **reason, ngx_uint_t *line);

/*
 * Reads the text of a connection_string_file: a line
 * HostName=...;SharedAccessKeyName=...;SharedAccessKey=... and optionally a
 * second one with the secondary key of the same host and policy.  Parts may
 * come in any order, their names in any case.  A part with another name is
 * refused: each of them says that the string is not for this use.
 *
 * Returns as ngx_http_iothub_sas_parse_keys() does.
 */

ngx_int_t ngx_http_iothub_sas_parse_connection_string(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_iothub_sas_connection_t *connection,
    const char **reason, ngx_uint_t *line);

/*
 * Percent-encodes all but A-Z a-z 0-9 - _ . ~ with upper-case digits, as
 * encodeURIComponent() and Azure's SDKs do.  The first returns the size of
 * the result in bytes, the second writes it and returns its end.
 */

size_t ngx_http_iothub_sas_escaped_size(ngx_str_t *src);
u_char *ngx_http_iothub_sas_escape(u_char *dst, ngx_str_t *src);

/*
 * Writes "SharedAccessSignature sr=...&sig=...&skn=...&se=...".
 *
 * sr is already escaped; its bytes are both signed and sent (the hub signs
 * the text as received).  policy is not escaped yet; an empty one leaves
 * skn out, which is right for a device's own key.  key is decoded.  expiry
 * is in seconds since 1970.  Field order is that of Azure's Node SDK, any
 * is accepted.
 *
 * token_size is what the buffer must have at least, for any expiry.
 * token writes to buf, never beyond last, and returns the end of the token,
 * or NULL if OpenSSL failed, the key is empty or the buffer is too small.
 * The buffer then holds nothing to be used.
 *
 * https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas
 */

size_t ngx_http_iothub_sas_token_size(ngx_str_t *sr, ngx_str_t *policy);
u_char *ngx_http_iothub_sas_token(u_char *buf, u_char *last, ngx_str_t *sr,
    ngx_str_t *policy, ngx_str_t *key, time_t expiry);

/*
 * SHA-256 over n parts, each preceded by its length as eight bytes, most
 * significant first, so that moving a byte between parts changes the digest.
 * Writes NGX_HTTP_IOTHUB_SAS_SHA256_LEN bytes; ngx_hex_dump() makes text of
 * them.  NGX_OK, or NGX_ERROR if OpenSSL failed.
 */

ngx_int_t ngx_http_iothub_sas_sha256(u_char *digest, ngx_str_t *parts,
    ngx_uint_t n);

/*
 * A number by which a key is recognised without being kept: the first eight
 * bytes of SHA-256 over a fixed text and the decoded key.  The same on all
 * hosts and versions.  0 if OpenSSL failed.
 */

uint64_t ngx_http_iothub_sas_fingerprint(ngx_str_t *key);

/*
 * Random bytes of OpenSSL's generator, which differ between workers.
 * NGX_OK, or NGX_ERROR if it has none.
 */

ngx_int_t ngx_http_iothub_sas_random(u_char *p, size_t len);

/* The name and version of the library that signs; a constant. */

const char *ngx_http_iothub_sas_library(void);


#endif /* _NGX_HTTP_IOTHUB_SAS_H_INCLUDED_ */
