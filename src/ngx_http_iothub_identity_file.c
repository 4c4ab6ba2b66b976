
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_identity_file.h"
#include "ngx_http_iothub_siphash.h"


#define NGX_HTTP_IOTHUB_IDENTITY_FILE_MAGIC   0x494f544855425354ULL

/*
 * An export: these words, the host, the buckets, END, and SipHash-2-4 of all
 * that under a key of zeros.
 */

#define NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS   7
#define NGX_HTTP_IOTHUB_IDENTITY_FILE_END     (~(uint64_t) 0)
#define NGX_HTTP_IOTHUB_IDENTITY_MAX_HOST     1023

#define NGX_HTTP_IOTHUB_IDENTITY_OUT          512


/* an export on its way out */

typedef struct {
    ngx_http_iothub_identity_write_pt  write;
    void                              *data;
    ngx_http_iothub_siphash_t          sum;
    size_t                             total;
    ngx_uint_t                         n;
    uint64_t                           words[NGX_HTTP_IOTHUB_IDENTITY_OUT];
} ngx_http_iothub_identity_out_t;


static ngx_int_t ngx_http_iothub_identity_out(
    ngx_http_iothub_identity_out_t *out, uint64_t word);
static ngx_int_t ngx_http_iothub_identity_flush(
    ngx_http_iothub_identity_out_t *out);
static ngx_int_t ngx_http_iothub_identity_export_bucket(
    ngx_http_iothub_identity_out_t *out, uint64_t *bucket, uint64_t index);
static uint64_t ngx_http_iothub_identity_get(const u_char *p, size_t i);
static ngx_int_t ngx_http_iothub_identity_whole(const u_char *p, size_t n);
static ngx_int_t ngx_http_iothub_identity_is_ours(
    ngx_http_iothub_identity_shm_t *shm, const u_char *p, size_t n,
    const ngx_str_t *host, size_t *first);
static ngx_int_t ngx_http_iothub_identity_records(
    ngx_http_iothub_identity_shm_t *shm, const u_char *p, size_t i, size_t n);
static void ngx_http_iothub_identity_fill(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t i, time_t now);


ngx_int_t
ngx_http_iothub_identity_export(ngx_http_iothub_identity_shm_t *shm,
    const ngx_str_t *host, time_t now,
    ngx_http_iothub_identity_write_pt write, void *data)
{
    size_t                          i, n;
    uint64_t                        head[NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS];
    ngx_int_t                       rc;
    uint64_t                        text[(NGX_HTTP_IOTHUB_IDENTITY_MAX_HOST
                                          + 8) / 8];
    ngx_http_iothub_identity_out_t  out;

    if (host->len > NGX_HTTP_IOTHUB_IDENTITY_MAX_HOST) {
        return NGX_ERROR;
    }

    out.write = write;
    out.data = data;
    out.total = 0;
    out.n = 0;
    ngx_http_iothub_siphash_init(&out.sum, 0, 0);

    head[0] = NGX_HTTP_IOTHUB_IDENTITY_FILE_MAGIC;
    head[1] = NGX_HTTP_IOTHUB_IDENTITY_VERSION;
    head[2] = shm->nbuckets;
    head[3] = now;
    head[4] = shm->key[0];
    head[5] = shm->key[1];
    head[6] = host->len;

    rc = NGX_OK;

    for (i = 0; i < NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS && rc == NGX_OK; i++) {
        rc = ngx_http_iothub_identity_out(&out, head[i]);
    }

    ngx_memzero(text, sizeof(text));
    ngx_memcpy(text, host->data, host->len);
    n = (host->len + 7) / 8;

    for (i = 0; i < n && rc == NGX_OK; i++) {
        rc = ngx_http_iothub_identity_out(&out, text[i]);
    }

    for (i = 0; i < shm->nbuckets && rc == NGX_OK; i++) {
        rc = ngx_http_iothub_identity_export_bucket(&out,
                                                  shm->buckets[i].words, i);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_identity_out(&out,
                                          NGX_HTTP_IOTHUB_IDENTITY_FILE_END);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_iothub_identity_out(&out,
                 ngx_http_iothub_siphash_final(&out.sum, 0, out.total));
    }

    return (rc == NGX_OK) ? ngx_http_iothub_identity_flush(&out) : rc;
}


/*
 * Everything is validated before the first word is stored, so that a damaged
 * file leaves nothing of itself behind.
 */

ngx_int_t
ngx_http_iothub_identity_import(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t len, const ngx_str_t *host, time_t now)
{
    size_t     n, first;
    ngx_int_t  rc;

    n = len / sizeof(uint64_t);

    if (len % sizeof(uint64_t) != 0
        || ngx_http_iothub_identity_whole(p, n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_identity_is_ours(shm, p, n, host, &first);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_iothub_identity_records(shm, p, first, n) != NGX_OK) {
        return NGX_ERROR;
    }

    shm->key[0] = ngx_http_iothub_identity_get(p, 4);
    shm->key[1] = ngx_http_iothub_identity_get(p, 5);

    ngx_http_iothub_identity_fill(shm, p, first, now);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_identity_out(ngx_http_iothub_identity_out_t *out,
    uint64_t word)
{
    out->words[out->n++] = word;
    out->total += sizeof(uint64_t);

    ngx_http_iothub_siphash_word(&out->sum,
                       ngx_http_iothub_siphash_load((u_char *) &word));

    return (out->n == NGX_HTTP_IOTHUB_IDENTITY_OUT)
           ? ngx_http_iothub_identity_flush(out) : NGX_OK;
}


static ngx_int_t
ngx_http_iothub_identity_flush(ngx_http_iothub_identity_out_t *out)
{
    size_t  len;

    len = out->n * sizeof(uint64_t);
    out->n = 0;

    return len ? out->write(out->data, (u_char *) out->words, len) : NGX_OK;
}


/* index 56 | which words 8, then these words; nothing for an empty bucket */

static ngx_int_t
ngx_http_iothub_identity_export_bucket(ngx_http_iothub_identity_out_t *out,
    uint64_t *bucket, uint64_t index)
{
    uint64_t    word, mask, words[NGX_HTTP_IOTHUB_IDENTITY_WORDS];
    ngx_int_t   rc;
    ngx_uint_t  i, n;

    mask = 0;
    n = 0;

    for (i = 0; i < NGX_HTTP_IOTHUB_IDENTITY_WORDS; i++) {
        word = __atomic_load_n(&bucket[i], __ATOMIC_ACQUIRE);

        if (ngx_http_iothub_identity_is_used(word)) {
            mask |= (uint64_t) 1 << i;
            words[n++] = word;
        }
    }

    if (n == 0) {
        return NGX_OK;
    }

    rc = ngx_http_iothub_identity_out(out, index << 8 | mask);

    for (i = 0; i < n && rc == NGX_OK; i++) {
        rc = ngx_http_iothub_identity_out(out, words[i]);
    }

    return rc;
}


static uint64_t
ngx_http_iothub_identity_get(const u_char *p, size_t i)
{
    uint64_t  word;

    ngx_memcpy(&word, p + i * sizeof(uint64_t), sizeof(uint64_t));

    return word;
}


/* the shortest export has END and the checksum after its head */

static ngx_int_t
ngx_http_iothub_identity_whole(const u_char *p, size_t n)
{
    size_t                          i;
    ngx_http_iothub_siphash_t  sum;

    if (n < NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS + 2
        || ngx_http_iothub_identity_get(p, 0)
           != NGX_HTTP_IOTHUB_IDENTITY_FILE_MAGIC)
    {
        return NGX_ERROR;
    }

    ngx_http_iothub_siphash_init(&sum, 0, 0);

    for (i = 0; i < n - 1; i++) {
        ngx_http_iothub_siphash_word(&sum,
                     ngx_http_iothub_siphash_load(p + i * sizeof(uint64_t)));
    }

    return (ngx_http_iothub_siphash_final(&sum, 0, i * sizeof(uint64_t))
            == ngx_http_iothub_identity_get(p, n - 1))
           ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_iothub_identity_is_ours(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t n, const ngx_str_t *host, size_t *first)
{
    size_t  len;

    if (ngx_http_iothub_identity_get(p, 1) != NGX_HTTP_IOTHUB_IDENTITY_VERSION)
    {
        return NGX_DECLINED;
    }

    len = ngx_http_iothub_identity_get(p, 6);
    *first = NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS + (len + 7) / 8;

    if (len > NGX_HTTP_IOTHUB_IDENTITY_MAX_HOST || *first + 2 > n) {
        return NGX_ERROR;
    }

    if (len != host->len
        || ngx_memcmp(p + NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS
                          * sizeof(uint64_t), host->data, len)
           != 0
        || ngx_http_iothub_identity_get(p, 2) != shm->nbuckets)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* buckets in order, each within the table, no word but states and asks */

static ngx_int_t
ngx_http_iothub_identity_records(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t i, size_t n)
{
    uint64_t    head, word, next;
    ngx_uint_t  mask;

    next = 0;

    for (n -= 2; i < n; next = (head >> 8) + 1) {

        head = ngx_http_iothub_identity_get(p, i++);
        mask = head & 0xff;

        if (mask == 0 || head >> 8 < next || head >> 8 >= shm->nbuckets) {
            return NGX_ERROR;
        }

        for ( /* void */ ; mask; mask &= mask - 1) {

            if (i == n) {
                return NGX_ERROR;
            }

            word = ngx_http_iothub_identity_get(p, i++);

            if (!ngx_http_iothub_identity_is_used(word)) {
                return NGX_ERROR;
            }
        }
    }

    return (ngx_http_iothub_identity_get(p, n)
            == NGX_HTTP_IOTHUB_IDENTITY_FILE_END)
           ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_iothub_identity_fill(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t i, time_t now)
{
    time_t      saved;
    uint64_t    head, word, *bucket;
    ngx_uint_t  w;

    saved = ngx_http_iothub_identity_get(p, 3);

    for ( ;; ) {
        head = ngx_http_iothub_identity_get(p, i++);

        if (head == NGX_HTTP_IOTHUB_IDENTITY_FILE_END) {
            return;
        }

        bucket = shm->buckets[head >> 8].words;

        for (w = 0; w < NGX_HTTP_IOTHUB_IDENTITY_WORDS; w++) {

            if (!(head >> w & 1)) {
                continue;
            }

            word = ngx_http_iothub_identity_get(p, i++);
            word = ngx_http_iothub_identity_moved(word, saved, now);

            (void) ngx_http_iothub_identity_swap(shm, &bucket[w], 0, word);
        }
    }
}
