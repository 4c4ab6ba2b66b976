
/* Copyright (C) the ngx_http_iothub_module authors */

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "ngx_http_iothub_signature.h"
#include "ngx_http_iothub_keys.h"
#include "ngx_http_iothub_sender.h"
#include "ngx_http_iothub_text.h"


#define NGX_HTTP_IOTHUB_SIGNATURE_LEN        32
#define NGX_HTTP_IOTHUB_SIGNATURE_BASE64     44

#define NGX_HTTP_IOTHUB_SIGNATURE_TOLERANCE  300


struct ngx_http_iothub_signature_scheme_s {
    ngx_str_t                      name;
    ngx_str_t                      headers[NGX_HTTP_IOTHUB_SIGNATURE_HEADERS];
    ngx_str_t                      time;       /* before it, if it stands
                                                  among the signatures */
    ngx_str_t                      prefix;
    u_char                         separator;
    unsigned                       base64:1;
    unsigned                       any:1;      /* prefix= and encoding= */
    time_t                         tolerance;
    ngx_http_iothub_sender_add_pt  add_key;
};


/* name and its "=", as text that a parameter starts with */

typedef struct {
    ngx_str_t    name;
    ngx_int_t  (*set)(ngx_pool_t *pool, ngx_http_iothub_signature_t *signature,
                      ngx_str_t *value, const char **reason);
} ngx_http_iothub_signature_parameter_t;


static ngx_int_t ngx_http_iothub_signature_set_header(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason);
static ngx_int_t ngx_http_iothub_signature_set_prefix(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason);
static ngx_int_t ngx_http_iothub_signature_set_encoding(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason);
static ngx_int_t ngx_http_iothub_signature_set_tolerance(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason);
static ngx_int_t ngx_http_iothub_signature_sibling(ngx_pool_t *pool,
    ngx_str_t *name, ngx_str_t *base, const char *end);

static ngx_int_t ngx_http_iothub_signature_add_text(ngx_pool_t *pool,
    ngx_array_t *keys, ngx_str_t *value, const char **reason);
static ngx_int_t ngx_http_iothub_signature_add_whsec(ngx_pool_t *pool,
    ngx_array_t *keys, ngx_str_t *value, const char **reason);

static ngx_int_t ngx_http_iothub_signature_fault(
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, const char *fault,
    ngx_http_iothub_signature_header_e header);
static ngx_int_t ngx_http_iothub_signature_show_time(
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, time_t now);
static ngx_int_t ngx_http_iothub_signature_next(
    ngx_http_iothub_signature_t *signature, const ngx_str_t *prefix,
    ngx_str_t *rest, ngx_str_t *value);
static ngx_int_t ngx_http_iothub_signature_decode(
    ngx_http_iothub_signature_t *signature, ngx_str_t *text, u_char *dst);
static ngx_int_t ngx_http_iothub_signature_decode_base64(ngx_str_t *text,
    u_char *dst);
static EVP_MD_CTX *ngx_http_iothub_signature_mac(ngx_str_t *key);


const char  ngx_http_iothub_signature_names[] =
    "github, stripe, standard-webhooks or hmac-sha256";


static const ngx_http_iothub_signature_scheme_t
    ngx_http_iothub_signature_schemes[] =
{
    /* https://docs.github.com/webhooks/using-webhooks */

    { ngx_string("github"),
      { ngx_string("x-hub-signature-256"),
        ngx_null_string,
        ngx_null_string },
      ngx_null_string,
      ngx_string("sha256="),
      ',', 0, 0, 0,
      ngx_http_iothub_signature_add_text },

    /* https://docs.stripe.com/webhooks#verify-manually */

    { ngx_string("stripe"),
      { ngx_string("stripe-signature"),
        ngx_null_string,
        ngx_null_string },
      ngx_string("t="),
      ngx_string("v1="),
      ',', 0, 0, NGX_HTTP_IOTHUB_SIGNATURE_TOLERANCE,
      ngx_http_iothub_signature_add_text },

    /* https://github.com/standard-webhooks/standard-webhooks */

    { ngx_string("standard-webhooks"),
      { ngx_string("webhook-signature"),
        ngx_string("webhook-id"),
        ngx_string("webhook-timestamp") },
      ngx_null_string,
      ngx_string("v1,"),
      ' ', 1, 0, NGX_HTTP_IOTHUB_SIGNATURE_TOLERANCE,
      ngx_http_iothub_signature_add_whsec },

    { ngx_string("hmac-sha256"),
      { ngx_null_string,
        ngx_null_string,
        ngx_null_string },
      ngx_null_string,
      ngx_null_string,
      ',', 0, 1, 0,
      ngx_http_iothub_signature_add_text },

    { ngx_null_string,
      { ngx_null_string, ngx_null_string, ngx_null_string },
      ngx_null_string, ngx_null_string, 0, 0, 0, 0, NULL }
};


static const ngx_http_iothub_signature_parameter_t
    ngx_http_iothub_signature_parameters[] =
{
    { ngx_string("header="), ngx_http_iothub_signature_set_header },
    { ngx_string("prefix="), ngx_http_iothub_signature_set_prefix },
    { ngx_string("encoding="), ngx_http_iothub_signature_set_encoding },
    { ngx_string("tolerance="), ngx_http_iothub_signature_set_tolerance },
    { ngx_null_string, NULL }
};


ngx_int_t
ngx_http_iothub_signature_init(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *name)
{
    ngx_uint_t                                 i;
    const ngx_http_iothub_signature_scheme_t  *scheme;

    for (scheme = ngx_http_iothub_signature_schemes; scheme->name.len;
         scheme++)
    {
        if (scheme->name.len == name->len
            && ngx_memcmp(scheme->name.data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (scheme->name.len == 0) {
        return NGX_DECLINED;
    }

    ngx_memzero(signature, sizeof(ngx_http_iothub_signature_t));

    signature->scheme = scheme;
    signature->prefix = scheme->prefix;
    signature->base64 = scheme->base64;
    signature->tolerance = scheme->tolerance;

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_HEADERS; i++) {
        signature->headers[i] = scheme->headers[i];
    }

    return ngx_array_init(&signature->keys, pool, 2, sizeof(ngx_str_t));
}


ngx_int_t
ngx_http_iothub_signature_set(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *parameter,
    const char **reason)
{
    ngx_str_t                                     value;
    ngx_uint_t                                    i;
    const ngx_http_iothub_signature_parameter_t  *p;

    *reason = NULL;

    p = ngx_http_iothub_signature_parameters;

    for (i = 0; p[i].name.len; i++) {

        if (parameter->len < p[i].name.len
            || ngx_memcmp(parameter->data, p[i].name.data, p[i].name.len) != 0)
        {
            continue;
        }

        if (signature->given & ((ngx_uint_t) 1 << i)) {
            return NGX_DECLINED;
        }

        signature->given |= (ngx_uint_t) 1 << i;

        value.data = parameter->data + p[i].name.len;
        value.len = parameter->len - p[i].name.len;

        return p[i].set(pool, signature, &value, reason);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_signature_set_header(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason)
{
    ngx_str_t  base, *headers;

    static ngx_str_t  end = ngx_string("-signature");

    if (!ngx_http_iothub_header_name(value)) {
        *reason = "no header has such a name";
        return NGX_DECLINED;
    }

    ngx_strlow(value->data, value->data, value->len);

    headers = signature->headers;
    headers[NGX_HTTP_IOTHUB_SIGNATURE_VALUE] = *value;

    if (headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len == 0) {
        return NGX_OK;
    }

    /* the other headers have the same beginning: svix-signature, svix-id */

    if (value->len <= end.len
        || ngx_memcmp(value->data + value->len - end.len, end.data, end.len)
           != 0)
    {
        *reason = "its name must end in \"-signature\", for the headers of "
                  "the id and the time";
        return NGX_DECLINED;
    }

    base.data = value->data;
    base.len = value->len - end.len;

    if (ngx_http_iothub_signature_sibling(pool,
                              &headers[NGX_HTTP_IOTHUB_SIGNATURE_ID], &base,
                              "-id")
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_iothub_signature_sibling(pool,
                              &headers[NGX_HTTP_IOTHUB_SIGNATURE_TIME], &base,
                              "-timestamp");
}


static ngx_int_t
ngx_http_iothub_signature_sibling(ngx_pool_t *pool, ngx_str_t *name,
    ngx_str_t *base, const char *end)
{
    name->len = base->len + ngx_strlen(end);

    name->data = ngx_pnalloc(pool, name->len);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ngx_cpymem(name->data, base->data, base->len), end,
               name->len - base->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_set_prefix(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason)
{
    size_t  i;

    if (!signature->scheme->any) {

        if (value->len == signature->prefix.len
            && ngx_memcmp(value->data, signature->prefix.data, value->len)
               == 0)
        {
            return NGX_OK;
        }

        *reason = "the scheme says what stands before a signature; only "
                  "\"hmac-sha256\" takes another";
        return NGX_DECLINED;
    }

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] == 0x7f) {
            *reason = "no header holds control characters";
            return NGX_DECLINED;
        }
    }

    if (value->len
        && (value->data[0] == ' '
            || value->data[0] == signature->scheme->separator))
    {
        *reason = "it must not start with a blank or a comma, which stand "
                  "between signatures";
        return NGX_DECLINED;
    }

    signature->prefix = *value;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_set_encoding(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason)
{
    unsigned  base64;

    if (value->len == 6 && ngx_memcmp(value->data, "base64", 6) == 0) {
        base64 = 1;

    } else if (value->len == 3 && ngx_memcmp(value->data, "hex", 3) == 0) {
        base64 = 0;

    } else {
        *reason = "write \"encoding=hex\" or \"encoding=base64\"";
        return NGX_DECLINED;
    }

    if (!signature->scheme->any && base64 != signature->scheme->base64) {
        *reason = "the scheme says how a signature is written; only "
                  "\"hmac-sha256\" takes another";
        return NGX_DECLINED;
    }

    signature->base64 = base64;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_set_tolerance(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *value,
    const char **reason)
{
    ngx_int_t  seconds;

    if (signature->tolerance == 0) {
        *reason = "the scheme signs no time; \"stripe\" and "
                  "\"standard-webhooks\" do";
        return NGX_DECLINED;
    }

    seconds = ngx_parse_time(value, 1);

    if (seconds == NGX_ERROR || seconds == 0) {
        *reason = "write a time that is longer than nothing, such as "
                  "\"tolerance=5m\"";
        return NGX_DECLINED;
    }

    signature->tolerance = seconds;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_signature_parse_keys(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature, ngx_str_t *text,
    const char **reason, ngx_uint_t *line)
{
    return ngx_http_iothub_sender_parse_lines(pool, text, &signature->keys,
                                              signature->scheme->add_key,
                                              reason, line);
}


static ngx_int_t
ngx_http_iothub_signature_add_text(ngx_pool_t *pool, ngx_array_t *keys,
    ngx_str_t *value, const char **reason)
{
    ngx_str_t  *key;

    key = ngx_array_push(keys);
    if (key == NULL) {
        return NGX_ERROR;
    }

    key->len = value->len;

    key->data = ngx_pstrdup(pool, value);
    if (key->data == NULL) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_add_whsec(ngx_pool_t *pool, ngx_array_t *keys,
    ngx_str_t *value, const char **reason)
{
    ngx_int_t   rc;
    ngx_str_t   base64, *key;

    base64 = *value;

    if (base64.len >= 5
        && (ngx_memcmp(base64.data, "whpk_", 5) == 0
            || ngx_memcmp(base64.data, "whsk_", 5) == 0))
    {
        *reason = "this is an ed25519 key, give the secret that starts with "
                  "\"whsec_\"";
        return NGX_DECLINED;
    }

    /* some senders show the base64 alone */

    if (base64.len >= 6 && ngx_memcmp(base64.data, "whsec_", 6) == 0) {
        base64.data += 6;
        base64.len -= 6;
    }

    key = ngx_array_push(keys);
    if (key == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_keys_decode(pool, &base64, key);

    if (rc == NGX_DECLINED) {
        *reason = "not base64 after \"whsec_\", copy the secret whole";
    }

    return rc;
}


static ngx_int_t
ngx_http_iothub_signature_fault(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, const char *fault,
    ngx_http_iothub_signature_header_e header)
{
    shown->fault = fault;
    shown->header = &signature->headers[header];

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_iothub_signature_show(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, time_t now)
{
    u_char       digest[NGX_HTTP_IOTHUB_SIGNATURE_LEN];
    ngx_str_t    rest, text, *id;
    ngx_uint_t   i;

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_HEADERS; i++) {
        if (signature->headers[i].len
            && (shown->values[i] == NULL || shown->values[i]->len == 0))
        {
            return ngx_http_iothub_signature_fault(signature, shown, "no", i);
        }
    }

    /* a dot in the id could have been one of the signed body, shifted */

    id = shown->values[NGX_HTTP_IOTHUB_SIGNATURE_ID];

    if (signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len
        && ngx_strlchr(id->data, id->data + id->len, '.'))
    {
        return ngx_http_iothub_signature_fault(signature, shown, "a dot in",
                                               NGX_HTTP_IOTHUB_SIGNATURE_ID);
    }

    rest = *shown->values[NGX_HTTP_IOTHUB_SIGNATURE_VALUE];

    do {
        if (ngx_http_iothub_signature_next(signature, &signature->prefix,
                                           &rest, &text)
            != NGX_OK)
        {
            return ngx_http_iothub_signature_fault(signature, shown,
                                             "no signature in",
                                             NGX_HTTP_IOTHUB_SIGNATURE_VALUE);
        }

    } while (ngx_http_iothub_signature_decode(signature, &text, digest)
             != NGX_OK);

    return ngx_http_iothub_signature_show_time(signature, shown, now);
}


static ngx_int_t
ngx_http_iothub_signature_show_time(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, time_t now)
{
    time_t                               sent;
    ngx_str_t                            rest, again;
    const ngx_str_t                     *prefix;
    ngx_http_iothub_signature_header_e   header;

    if (signature->tolerance == 0) {
        return NGX_OK;
    }

    prefix = &signature->scheme->time;

    header = prefix->len ? NGX_HTTP_IOTHUB_SIGNATURE_VALUE
                         : NGX_HTTP_IOTHUB_SIGNATURE_TIME;

    rest = *shown->values[header];
    shown->time = rest;

    if (prefix->len
        && ngx_http_iothub_signature_next(signature, prefix, &rest,
                                          &shown->time)
           != NGX_OK)
    {
        return ngx_http_iothub_signature_fault(signature, shown, "no time in",
                                               header);
    }

    if (prefix->len
        && ngx_http_iothub_signature_next(signature, prefix, &rest, &again)
           == NGX_OK)
    {
        return ngx_http_iothub_signature_fault(signature, shown,
                                               "two times in", header);
    }

    sent = ngx_atotm(shown->time.data, shown->time.len);

    if (sent == (time_t) NGX_ERROR) {
        return ngx_http_iothub_signature_fault(signature, shown, "no time in",
                                               header);
    }

    if (now - sent > signature->tolerance || sent - now > signature->tolerance)
    {
        shown->off = now - sent;

        return ngx_http_iothub_signature_fault(signature, shown,
                                               "time is off in", header);
    }

    return NGX_OK;
}


/* the next item of a list that starts with the prefix, without it */

static ngx_int_t
ngx_http_iothub_signature_next(ngx_http_iothub_signature_t *signature,
    const ngx_str_t *prefix, ngx_str_t *rest, ngx_str_t *value)
{
    u_char      *p, *last, *end, separator;
    ngx_uint_t   found;

    separator = signature->scheme->separator;
    p = rest->data;
    last = p + rest->len;

    for ( ;; ) {

        while (p < last && (*p == ' ' || *p == '\t' || *p == separator)) {
            p++;
        }

        if (p == last) {
            rest->len = 0;
            return NGX_DONE;
        }

        found = (size_t) (last - p) >= prefix->len
                && ngx_memcmp(p, prefix->data, prefix->len) == 0;

        if (found) {
            p += prefix->len;
        }

        /* behind the prefix, which may hold the separator */

        end = ngx_strlchr(p, last, separator);
        if (end == NULL) {
            end = last;
        }

        if (found) {
            break;
        }

        p = end;
    }

    rest->data = end;
    rest->len = last - end;

    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }

    value->data = p;
    value->len = end - p;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_signature_decode(ngx_http_iothub_signature_t *signature,
    ngx_str_t *text, u_char *dst)
{
    ngx_int_t   byte;
    ngx_uint_t  i;

    if (signature->base64) {
        return ngx_http_iothub_signature_decode_base64(text, dst);
    }

    if (text->len != 2 * NGX_HTTP_IOTHUB_SIGNATURE_LEN) {
        return NGX_DECLINED;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_LEN; i++) {

        byte = ngx_hextoi(text->data + 2 * i, 2);

        if (byte == NGX_ERROR) {
            return NGX_DECLINED;
        }

        dst[i] = (u_char) byte;
    }

    return NGX_OK;
}


/* nginx's decoder takes more than what its encoder makes */

static ngx_int_t
ngx_http_iothub_signature_decode_base64(ngx_str_t *text, u_char *dst)
{
    u_char     decoded[NGX_HTTP_IOTHUB_SIGNATURE_BASE64];
    u_char     encoded[NGX_HTTP_IOTHUB_SIGNATURE_BASE64];
    ngx_str_t  digest, again;

    if (text->len != NGX_HTTP_IOTHUB_SIGNATURE_BASE64) {
        return NGX_DECLINED;
    }

    digest.data = decoded;
    again.data = encoded;

    if (ngx_decode_base64(&digest, text) != NGX_OK
        || digest.len != NGX_HTTP_IOTHUB_SIGNATURE_LEN)
    {
        return NGX_DECLINED;
    }

    ngx_encode_base64(&again, &digest);

    if (ngx_memcmp(encoded, text->data, NGX_HTTP_IOTHUB_SIGNATURE_BASE64)
        != 0)
    {
        return NGX_DECLINED;
    }

    ngx_memcpy(dst, decoded, NGX_HTTP_IOTHUB_SIGNATURE_LEN);

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_signature_begin(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown)
{
    ngx_str_t   *key, *part[2];
    ngx_uint_t   i;

    shown->macs = ngx_pcalloc(pool, signature->keys.nelts * sizeof(void *));
    if (shown->macs == NULL) {
        return NGX_ERROR;
    }

    key = signature->keys.elts;

    for (i = 0; i < signature->keys.nelts; i++) {
        shown->macs[i] = ngx_http_iothub_signature_mac(&key[i]);

        if (shown->macs[i] == NULL) {
            return NGX_ERROR;
        }
    }

    part[0] = signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len
              ? shown->values[NGX_HTTP_IOTHUB_SIGNATURE_ID] : NULL;
    part[1] = signature->tolerance ? &shown->time : NULL;

    for (i = 0; i < 2; i++) {

        if (part[i] == NULL) {
            continue;
        }

        if (ngx_http_iothub_signature_update(signature, shown, part[i]->data,
                                             part[i]->len)
            != NGX_OK
            || ngx_http_iothub_signature_update(signature, shown,
                                                (u_char *) ".", 1)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* what every OpenSSL from 1.1.1 on has, and none calls deprecated */

static EVP_MD_CTX *
ngx_http_iothub_signature_mac(ngx_str_t *key)
{
    EVP_PKEY    *pkey;
    EVP_MD_CTX  *mac;

    pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key->data,
                                        key->len);
    mac = EVP_MD_CTX_new();

    if (pkey == NULL || mac == NULL
        || EVP_DigestSignInit(mac, NULL, EVP_sha256(), NULL, pkey) != 1)
    {
        ERR_clear_error();
        EVP_MD_CTX_free(mac);
        mac = NULL;
    }

    /* mac keeps a reference of its own */

    EVP_PKEY_free(pkey);

    return mac;
}


ngx_int_t
ngx_http_iothub_signature_update(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown, u_char *data, size_t len)
{
    ngx_uint_t  i;

    if (len == 0) {
        return NGX_OK;
    }

    for (i = 0; i < signature->keys.nelts; i++) {
        if (EVP_DigestSignUpdate(shown->macs[i], data, len) != 1) {
            ERR_clear_error();
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_signature_check(ngx_pool_t *pool,
    ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown)
{
    u_char       digest[NGX_HTTP_IOTHUB_SIGNATURE_LEN], *made;
    size_t       len;
    ngx_str_t    rest, text;
    ngx_uint_t   i, n, right;

    n = signature->keys.nelts;

    made = ngx_pnalloc(pool, n * NGX_HTTP_IOTHUB_SIGNATURE_LEN);
    if (made == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        len = NGX_HTTP_IOTHUB_SIGNATURE_LEN;

        if (EVP_DigestSignFinal(shown->macs[i],
                                made + i * NGX_HTTP_IOTHUB_SIGNATURE_LEN, &len)
            != 1
            || len != NGX_HTTP_IOTHUB_SIGNATURE_LEN)
        {
            ERR_clear_error();
            return NGX_ERROR;
        }
    }

    rest = *shown->values[NGX_HTTP_IOTHUB_SIGNATURE_VALUE];
    right = 0;

    /* no early way out: the time must not tell which one it was */

    while (ngx_http_iothub_signature_next(signature, &signature->prefix,
                                          &rest, &text)
           == NGX_OK)
    {
        if (ngx_http_iothub_signature_decode(signature, &text, digest)
            != NGX_OK)
        {
            continue;
        }

        for (i = 0; i < n; i++) {
            right |= CRYPTO_memcmp(digest,
                                   made + i * NGX_HTTP_IOTHUB_SIGNATURE_LEN,
                                   NGX_HTTP_IOTHUB_SIGNATURE_LEN)
                     == 0;
        }
    }

    /* it would let in who knew it */

    ngx_explicit_memzero(made, n * NGX_HTTP_IOTHUB_SIGNATURE_LEN);

    if (!right) {
        return ngx_http_iothub_signature_fault(signature, shown,
                                             "wrong signature in",
                                             NGX_HTTP_IOTHUB_SIGNATURE_VALUE);
    }

    return NGX_OK;
}


void
ngx_http_iothub_signature_end(ngx_http_iothub_signature_t *signature,
    ngx_http_iothub_signature_shown_t *shown)
{
    ngx_uint_t  i;

    if (shown->macs == NULL) {
        return;
    }

    for (i = 0; i < signature->keys.nelts; i++) {
        EVP_MD_CTX_free(shown->macs[i]);
    }

    shown->macs = NULL;
}
