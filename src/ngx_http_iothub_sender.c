
/* Copyright (C) the ngx_http_iothub_module authors */

#include <openssl/crypto.h>

#include "ngx_http_iothub_sender.h"
#include "ngx_http_iothub_keys.h"
#include "ngx_http_iothub_sas.h"


static ngx_uint_t ngx_http_iothub_sender_plain(ngx_str_t *text);
static ngx_int_t ngx_http_iothub_sender_add_secret(ngx_pool_t *pool,
    ngx_array_t *secrets, ngx_str_t *value, const char **reason);


ngx_int_t
ngx_http_iothub_sender_parse_secrets(ngx_pool_t *pool, ngx_str_t *text,
    ngx_array_t *secrets, const char **reason, ngx_uint_t *line)
{
    return ngx_http_iothub_sender_parse_lines(pool, text, secrets,
                                              ngx_http_iothub_sender_add_secret,
                                              reason, line);
}


ngx_int_t
ngx_http_iothub_sender_parse_lines(ngx_pool_t *pool, ngx_str_t *text,
    ngx_array_t *secrets, ngx_http_iothub_sender_add_pt add,
    const char **reason, ngx_uint_t *line)
{
    ngx_int_t   rc;
    ngx_str_t   rest, value;
    ngx_uint_t  lines;

    rest = *text;
    lines = 0;
    *line = 0;

    while (ngx_http_iothub_keys_next_line(&rest, &value, line) == NGX_OK) {

        if (!ngx_http_iothub_sender_plain(&value)) {
            *reason = "a control character, write plain text";
            return NGX_DECLINED;
        }

        rc = add(pool, secrets, &value, reason);

        if (rc != NGX_OK) {
            return rc;
        }

        lines++;
    }

    *line = 0;

    if (lines == 0) {
        *reason = "no secret in it, write one a line";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_iothub_sender_plain(ngx_str_t *text)
{
    size_t  i;
    u_char  c;

    for (i = 0; i < text->len; i++) {
        c = text->data[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_iothub_sender_add_secret(ngx_pool_t *pool, ngx_array_t *secrets,
    ngx_str_t *value, const char **reason)
{
    u_char     *digest;
    ngx_str_t  *secret;

    digest = ngx_pnalloc(pool, NGX_HTTP_IOTHUB_SAS_SHA256_LEN);
    if (digest == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_iothub_sas_sha256(digest, value, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    secret = ngx_array_push(secrets);
    if (secret == NULL) {
        return NGX_ERROR;
    }

    secret->data = digest;
    secret->len = NGX_HTTP_IOTHUB_SAS_SHA256_LEN;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_sender_check_secret(ngx_array_t *secrets, ngx_str_t *value)
{
    u_char       digest[NGX_HTTP_IOTHUB_SAS_SHA256_LEN];
    ngx_str_t   *secret;
    ngx_uint_t   i, found;

    if (value == NULL || value->len == 0) {
        return NGX_DECLINED;
    }

    if (ngx_http_iothub_sas_sha256(digest, value, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    secret = secrets->elts;
    found = 0;

    /* no early way out: the time must not tell which line it was */

    for (i = 0; i < secrets->nelts; i++) {
        found |= CRYPTO_memcmp(digest, secret[i].data,
                               NGX_HTTP_IOTHUB_SAS_SHA256_LEN)
                 == 0;
    }

    return found ? NGX_OK : NGX_DECLINED;
}
