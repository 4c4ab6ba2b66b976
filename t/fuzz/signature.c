
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Fuzz target of the signature room.  An input is a letter that says what
 * follows (see the switch): a signature header, an id and a time, each up to
 * a line feed, and the body: "sv1=00,t=1700000000\n\n\nbody"; or the text of a
 * key file, or a parameter.
 */

#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "ngx_http_iothub_signature.h"


#define NOW     1700000000
#define KEY     "key"
#define LEN     32

#define must(cond)  do { if (!(cond)) { __builtin_trap(); } } while (0)


static ngx_pool_t  *pool;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* a buffer of exact size, so that a step out of it is seen */

static ngx_str_t
copy(const uint8_t *data, size_t size)
{
    ngx_str_t  s;

    s.len = size;
    s.data = malloc(size ? size : 1);
    must(s.data != NULL);

    if (size) {
        ngx_memcpy(s.data, data, size);
    }

    return s;
}


static void
configure(ngx_http_iothub_signature_t *signature, const char *scheme,
    const char *prefix, const char *encoding)
{
    ngx_str_t    name, text;
    ngx_uint_t   line;
    const char  *reason;

    name.data = (u_char *) scheme;
    name.len = ngx_strlen(scheme);
    must(ngx_http_iothub_signature_init(pool, signature, &name) == NGX_OK);

    if (prefix) {
        text.data = (u_char *) prefix;
        text.len = ngx_strlen(prefix);
        must(ngx_http_iothub_signature_set(pool, signature, &text, &reason)
             == NGX_OK);

        text.data = (u_char *) encoding;
        text.len = ngx_strlen(encoding);
        must(ngx_http_iothub_signature_set(pool, signature, &text, &reason)
             == NGX_OK);

        ngx_str_set(&signature->headers[0], "x");
    }

    /* the second one is KEY */

    ngx_str_set(&text, "old\n" KEY "\n");

    if (signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len) {
        ngx_str_set(&text, "b2xk\nwhsec_a2V5\n");
    }

    must(ngx_http_iothub_signature_parse_keys(pool, signature, &text, &reason,
                                              &line)
         == NGX_OK);
}


static ngx_int_t
verify(ngx_http_iothub_signature_t *signature, ngx_str_t *part,
    ngx_http_iothub_signature_shown_t *shown, size_t step)
{
    size_t      n, size;
    ngx_int_t   rc;
    ngx_uint_t  i;

    ngx_memzero(shown, sizeof(ngx_http_iothub_signature_shown_t));

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_HEADERS; i++) {
        shown->values[i] = part[i].len ? &part[i] : NULL;
    }

    rc = ngx_http_iothub_signature_show(signature, shown, NOW);

    if (rc == NGX_OK) {
        must(ngx_http_iothub_signature_begin(pool, signature, shown)
             == NGX_OK);

        for (n = 0; n < part[3].len; n += size) {
            size = ngx_min(part[3].len - n, step);
            must(ngx_http_iothub_signature_update(signature, shown,
                                                  part[3].data + n, size)
                 == NGX_OK);
        }

        rc = ngx_http_iothub_signature_check(pool, signature, shown);

        ngx_http_iothub_signature_end(signature, shown);
    }

    must(rc == NGX_OK || rc == NGX_DECLINED);

    if (rc == NGX_DECLINED) {
        must(shown->fault != NULL && shown->header && shown->header->len);
    }

    return rc;
}


/* what is to be signed, and its signature as text, by another way */

static ngx_str_t
sign(ngx_http_iothub_signature_t *signature, ngx_str_t *id, ngx_str_t *time,
    ngx_str_t *body)
{
    u_char       *p, *text, digest[EVP_MAX_MD_SIZE];
    unsigned      len;
    ngx_str_t     made, src;

    text = malloc(id->len + time->len + body->len + 2);
    must(text != NULL);

    p = text;

    if (signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len) {
        p = ngx_cpymem(p, id->data, id->len);
        *p++ = '.';
    }

    if (signature->tolerance) {
        p = ngx_cpymem(p, time->data, time->len);
        *p++ = '.';
    }

    p = ngx_cpymem(p, body->data, body->len);

    must(HMAC(EVP_sha256(), KEY, sizeof(KEY) - 1, text, p - text, digest,
              &len)
         && len == LEN);

    free(text);

    made.data = ngx_pnalloc(pool, 2 * LEN + 1);
    must(made.data != NULL);

    if (signature->base64) {
        src.data = digest;
        src.len = LEN;
        ngx_encode_base64(&made, &src);
        made.data[made.len] = '\0';

    } else {
        *ngx_hex_dump(made.data, digest, LEN) = '\0';
        made.len = 2 * LEN;
    }

    return made;
}


static ngx_uint_t
holds(ngx_str_t *value, ngx_str_t *text)
{
    size_t  i;

    for (i = 0; i + text->len <= value->len; i++) {
        if (ngx_strncasecmp(value->data + i, text->data, text->len) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
number(ngx_str_t *text)
{
    time_t  n;

    n = ngx_atotm(text->data, text->len);

    return n != (time_t) NGX_ERROR && n >= NOW - 300 && n <= NOW + 300;
}


/*
 * Only what holds the right signature is accepted; and that is, whatever
 * stands before it.
 */

static void
check_header(ngx_http_iothub_signature_t *signature, const uint8_t *data,
    size_t size)
{
    u_char                            *p, separator[2];
    ngx_str_t                          part[4], given, made;
    ngx_uint_t                         i;
    const uint8_t                     *lf, *last;
    ngx_http_iothub_signature_shown_t  shown;

    last = data + size;

    for (i = 0; i < 4; i++) {
        lf = i < 3 ? memchr(data, '\n', last - data) : NULL;
        part[i] = copy(data, (lf ? lf : last) - data);
        data = lf ? lf + 1 : last;
    }

    if (verify(signature, part, &shown, 3) == NGX_OK) {
        must(signature->tolerance == 0 || number(&shown.time));

        made = sign(signature, &part[1], &shown.time, &part[3]);
        must(holds(&part[0], &made));
    }

    must((verify(signature, part, &shown, 1000000) == NGX_OK)
         == (shown.fault == NULL));

    /* the time of Stripe's is in the header, with "t=" */

    given = part[0];
    separator[0] = signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len
                   ? ' ' : ',';

    made = sign(signature, &part[1], &part[2], &part[3]);

    part[0].data = malloc(given.len + part[2].len + 4 + signature->prefix.len
                          + made.len + 1);
    must(part[0].data != NULL);

    p = part[0].data;

    if (signature->tolerance
        && signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len == 0)
    {
        p = ngx_cpymem(p, "t=", 2);
        p = ngx_cpymem(p, part[2].data, part[2].len);

    } else {
        p = ngx_cpymem(p, given.data, given.len);
    }

    *p++ = separator[0];
    p = ngx_cpymem(p, signature->prefix.data, signature->prefix.len);
    p = ngx_cpymem(p, made.data, made.len);

    part[0].len = p - part[0].data;

    i = signature->headers[NGX_HTTP_IOTHUB_SIGNATURE_ID].len == 0
        || (part[1].len && memchr(part[1].data, '.', part[1].len) == NULL);

    if (i && (signature->tolerance == 0 || number(&part[2]))) {
        must(verify(signature, part, &shown, 1) == NGX_OK);
    }

    free(given.data);

    for (i = 0; i < 4; i++) {
        free(part[i].data);
    }
}


static void
check_keys(const char *scheme, const uint8_t *data, size_t size)
{
    ngx_int_t                     rc;
    ngx_str_t                     name, text, *key;
    ngx_uint_t                    i, line;
    const char                   *reason;
    ngx_http_iothub_signature_t   signature;

    name.data = (u_char *) scheme;
    name.len = ngx_strlen(scheme);
    must(ngx_http_iothub_signature_init(pool, &signature, &name) == NGX_OK);

    text = copy(data, size);
    reason = NULL;

    rc = ngx_http_iothub_signature_parse_keys(pool, &signature, &text,
                                              &reason, &line);
    free(text.data);

    must(rc == NGX_OK || (rc == NGX_DECLINED && reason));

    if (rc == NGX_OK) {
        key = signature.keys.elts;
        must(signature.keys.nelts);

        for (i = 0; i < signature.keys.nelts; i++) {
            must(key[i].len);
        }
    }
}


static void
check_parameter(const char *scheme, const uint8_t *data, size_t size)
{
    ngx_int_t                     rc;
    ngx_str_t                     name, text;
    const char                   *reason;
    ngx_http_iothub_signature_t   signature;

    name.data = (u_char *) scheme;
    name.len = ngx_strlen(scheme);
    must(ngx_http_iothub_signature_init(pool, &signature, &name) == NGX_OK);

    text = copy(data, size);

    rc = ngx_http_iothub_signature_set(pool, &signature, &text, &reason);

    must(rc == NGX_OK || rc == NGX_DECLINED);
    must(rc == NGX_OK ? reason == NULL : 1);
    must(signature.tolerance >= 0);

    free(text.data);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_uint_t                   i;
    ngx_http_iothub_signature_t  signature;

    static ngx_log_t   log;
    static const char  *schemes[] = {
        "github", "stripe", "standard-webhooks", "hmac-sha256"
    };

    if (size == 0) {
        return 0;
    }

    ngx_pagesize = 4096;

    pool = ngx_create_pool(4096, &log);
    must(pool != NULL);

    switch (data[0]) {

    case 'k':
        for (i = 0; i < 4; i++) {
            check_keys(schemes[i], data + 1, size - 1);
        }
        break;

    case 'p':
        for (i = 0; i < 4; i++) {
            check_parameter(schemes[i], data + 1, size - 1);
        }
        break;

    case 's':
        configure(&signature, "stripe", NULL, NULL);
        check_header(&signature, data + 1, size - 1);
        break;

    case 'w':
        configure(&signature, "standard-webhooks", NULL, NULL);
        check_header(&signature, data + 1, size - 1);
        break;

    case 'h':
        configure(&signature, "hmac-sha256", "prefix=v1, ", "encoding=hex");
        check_header(&signature, data + 1, size - 1);
        break;

    case 'b':
        configure(&signature, "hmac-sha256", "prefix=", "encoding=base64");
        check_header(&signature, data + 1, size - 1);
        break;

    default:
        configure(&signature, "github", NULL, NULL);
        check_header(&signature, data + 1, size - 1);
        break;
    }

    ngx_destroy_pool(pool);

    return 0;
}
