
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * sas: SAS tokens, and what they are made with: digests, random bytes.
 *
 * Pure: bytes in, values out; it logs nothing and keeps nothing but a
 * digest's context.  With sender and signature, the only room that knows
 * OpenSSL.
 */


#ifndef _NGX_HTTP_IOTHUB_SAS_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SAS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_HTTP_IOTHUB_SAS_SHA256_LEN  32


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
