
/* Copyright (C) the ngx_http_iothub_module authors */

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "ngx_http_iothub_sas.h"


/* short parts are hashed at once, if they fit here */
#define NGX_HTTP_IOTHUB_SAS_HASHED   512

/* base64 of a digest, of which any byte may have to be escaped as %XX */
#define NGX_HTTP_IOTHUB_SAS_SIG_LEN                                           \
    ngx_base64_encoded_length(NGX_HTTP_IOTHUB_SAS_SHA256_LEN)


static EVP_MD_CTX *ngx_http_iothub_sas_sha256_start(void);


size_t
ngx_http_iothub_sas_escaped_size(ngx_str_t *src)
{
    return src->len + 2 * ngx_escape_uri(NULL, src->data, src->len,
                                         NGX_ESCAPE_URI_COMPONENT);
}


u_char *
ngx_http_iothub_sas_escape(u_char *dst, ngx_str_t *src)
{
    if (ngx_http_iothub_sas_escaped_size(src) == src->len) {

        /* as most ids are */

        return ngx_cpymem(dst, src->data, src->len);
    }

    return (u_char *) ngx_escape_uri(dst, src->data, src->len,
                                     NGX_ESCAPE_URI_COMPONENT);
}


size_t
ngx_http_iothub_sas_token_size(ngx_str_t *sr, ngx_str_t *policy)
{
    size_t  size;

    size = sizeof("SharedAccessSignature sr=") - 1 + sr->len
           + sizeof("&sig=") - 1 + 3 * NGX_HTTP_IOTHUB_SAS_SIG_LEN
           + sizeof("&se=") - 1 + NGX_TIME_T_LEN;

    if (policy->len) {
        size += sizeof("&skn=") - 1 + ngx_http_iothub_sas_escaped_size(policy);
    }

    return size;
}


u_char *
ngx_http_iothub_sas_token(u_char *buf, u_char *last, ngx_str_t *sr,
    ngx_str_t *policy, ngx_str_t *key, time_t expiry)
{
    u_char        *p, *text, *end;
    u_char         hmac[EVP_MAX_MD_SIZE], base64[NGX_HTTP_IOTHUB_SAS_SIG_LEN];
    ngx_str_t      src, dst;
    unsigned int   len;

    if (sr->len == 0 || key->len == 0 || key->len > NGX_MAX_INT32_VALUE
        || (size_t) (last - buf) < ngx_http_iothub_sas_token_size(sr, policy))
    {
        return NULL;
    }

    text = ngx_cpymem(buf, "SharedAccessSignature sr=",
                      sizeof("SharedAccessSignature sr=") - 1);

    p = ngx_cpymem(text, sr->data, sr->len);

    /*
     * The string to sign is completed in the token's own place, for a
     * moment: so what is signed is what is sent.
     */

    end = ngx_sprintf(p, "\n%T", expiry);

    if (HMAC(EVP_sha256(), key->data, (int) key->len, text, end - text, hmac,
             &len)
        == NULL)
    {
        return NULL;
    }

    src.data = hmac;
    src.len = len;
    dst.data = base64;

    ngx_encode_base64(&dst, &src);

    p = ngx_cpymem(p, "&sig=", sizeof("&sig=") - 1);
    p = ngx_http_iothub_sas_escape(p, &dst);

    if (policy->len) {
        p = ngx_cpymem(p, "&skn=", sizeof("&skn=") - 1);
        p = ngx_http_iothub_sas_escape(p, policy);
    }

    return ngx_sprintf(p, "&se=%T", expiry);
}


ngx_int_t
ngx_http_iothub_sas_sha256(u_char *digest, ngx_str_t *parts, ngx_uint_t n)
{
    u_char      *p, *last, buf[NGX_HTTP_IOTHUB_SAS_HASHED];
    ngx_uint_t   i, k;
    EVP_MD_CTX  *ctx;

    ctx = ngx_http_iothub_sas_sha256_start();
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    /* each call into OpenSSL costs more than to gather what is short */

    p = buf;
    last = buf + sizeof(buf);

    for (i = 0; i < n; i++) {

        if ((size_t) (last - p) < 8 + parts[i].len) {

            if (EVP_DigestUpdate(ctx, buf, p - buf) != 1) {
                return NGX_ERROR;
            }

            p = buf;
        }

        for (k = 8; k > 0; k--) {
            *p++ = (u_char) ((uint64_t) parts[i].len >> (8 * (k - 1)));
        }

        if ((size_t) (last - p) >= parts[i].len) {
            p = ngx_cpymem(p, parts[i].data, parts[i].len);
            continue;
        }

        if (EVP_DigestUpdate(ctx, buf, p - buf) != 1
            || EVP_DigestUpdate(ctx, parts[i].data, parts[i].len) != 1)
        {
            return NGX_ERROR;
        }

        p = buf;
    }

    if (EVP_DigestUpdate(ctx, buf, p - buf) != 1) {
        return NGX_ERROR;
    }

    return EVP_DigestFinal_ex(ctx, digest, NULL) == 1 ? NGX_OK : NGX_ERROR;
}


/*
 * OpenSSL 3 looks for the algorithm by its name each time that a context has
 * none: the process keeps one context.
 */

static EVP_MD_CTX *
ngx_http_iothub_sas_sha256_start(void)
{
    static EVP_MD_CTX  *ctx;

    if (ctx == NULL) {
        ctx = EVP_MD_CTX_new();

        if (ctx == NULL) {
            return NULL;
        }

        if (EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
            EVP_MD_CTX_free(ctx);
            ctx = NULL;
        }

        return ctx;
    }

    return EVP_DigestInit_ex(ctx, NULL, NULL) == 1 ? ctx : NULL;
}


uint64_t
ngx_http_iothub_sas_fingerprint(ngx_str_t *key)
{
    u_char      digest[NGX_HTTP_IOTHUB_SAS_SHA256_LEN];
    uint64_t    fingerprint;
    ngx_str_t   parts[2];
    ngx_uint_t  i;

    ngx_str_set(&parts[0], "iothub key fingerprint");
    parts[1] = *key;

    if (ngx_http_iothub_sas_sha256(digest, parts, 2) != NGX_OK) {
        return 0;
    }

    fingerprint = 0;

    for (i = 0; i < 8; i++) {
        fingerprint = (fingerprint << 8) | digest[i];
    }

    return fingerprint;
}


ngx_int_t
ngx_http_iothub_sas_random(u_char *p, size_t len)
{
    return RAND_bytes(p, (int) len) == 1 ? NGX_OK : NGX_ERROR;
}


const char *
ngx_http_iothub_sas_library(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}
