
/* Copyright (C) the ngx_http_iothub_module authors */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_identity.h"


#define NGX_HTTP_IOTHUB_IDENTITY_MAGIC        0x494f544855424944ULL
#define NGX_HTTP_IOTHUB_IDENTITY_FILE_MAGIC   0x494f544855425354ULL
#define NGX_HTTP_IOTHUB_IDENTITY_VERSION      1

#define NGX_HTTP_IOTHUB_IDENTITY_LINE         64
#define NGX_HTTP_IOTHUB_IDENTITY_MIN_BUCKETS  256

/* a word: tag 36 | state 4 | time 24 */

#define NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT    28
#define NGX_HTTP_IOTHUB_IDENTITY_STATE_SHIFT  24
#define NGX_HTTP_IOTHUB_IDENTITY_STATE_MASK   0xf
#define NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK    0xffffff

/* a state of its own word, beside that of the device */

#define NGX_HTTP_IOTHUB_IDENTITY_ASKED        15

/* seconds */

#define NGX_HTTP_IOTHUB_IDENTITY_FRESH_TIME   600
#define NGX_HTTP_IOTHUB_IDENTITY_OLD_TIME     0x7fffff
#define NGX_HTTP_IOTHUB_IDENTITY_SKEW         60

/* a lease: device 16 | serial 24 | until 24, in ticks of 64 ms */

#define NGX_HTTP_IOTHUB_IDENTITY_SERIAL_MASK  0xffffff
#define NGX_HTTP_IOTHUB_IDENTITY_PRINT_SHIFT  48

/* those of the hash that do not choose the lease */

#define ngx_http_iothub_identity_lease_print(hash)                            \
    ((hash) >> 12 << NGX_HTTP_IOTHUB_IDENTITY_PRINT_SHIFT)

#define ngx_http_iothub_identity_lease_is_of(word, hash)                      \
    (((word) ^ ngx_http_iothub_identity_lease_print(hash))                    \
     >> NGX_HTTP_IOTHUB_IDENTITY_PRINT_SHIFT == 0)

#define NGX_HTTP_IOTHUB_IDENTITY_TICK_SHIFT   6
#define NGX_HTTP_IOTHUB_IDENTITY_LEASE_TICKS                                  \
    ((NGX_HTTP_IOTHUB_IDENTITY_LEASE_TIME >> 6) + 2)
#define NGX_HTTP_IOTHUB_IDENTITY_SKEW_TICKS   (30000 >> 6)

/*
 * An export: these words, the host, the buckets, END, and SipHash-2-4 of all
 * that under a key of zeros.
 */

#define NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS   7
#define NGX_HTTP_IOTHUB_IDENTITY_FILE_END     (~(uint64_t) 0)
#define NGX_HTTP_IOTHUB_IDENTITY_MAX_HOST     1023

#define NGX_HTTP_IOTHUB_IDENTITY_OUT          512


#define ngx_http_iothub_identity_state(word)                                  \
    (((word) >> NGX_HTTP_IOTHUB_IDENTITY_STATE_SHIFT)                         \
     & NGX_HTTP_IOTHUB_IDENTITY_STATE_MASK)

#define ngx_http_iothub_identity_same(word, hash)                             \
    ((((word) ^ ((hash) << NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT))               \
      >> NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT) == 0)

#define ngx_http_iothub_identity_rotl(x, n)                                   \
    (((x) << (n)) | ((x) >> (64 - (n))))


typedef struct {
    uint64_t   v0;
    uint64_t   v1;
    uint64_t   v2;
    uint64_t   v3;
} ngx_http_iothub_identity_sip_t;


/* what a scan of a bucket has found for one device; indexes are WORDS if not */

typedef struct {
    uint64_t   words[NGX_HTTP_IOTHUB_IDENTITY_WORDS];
    ngx_uint_t found;                  /* the lowest, the only one but for */
    ngx_uint_t second;                 /* a moment */
    ngx_uint_t free;
    ngx_uint_t oldest;
} ngx_http_iothub_identity_scan_t;


/* an export on its way out */

typedef struct {
    ngx_http_iothub_identity_write_pt  write;
    void                              *data;
    ngx_http_iothub_identity_sip_t     sum;
    size_t                             total;
    ngx_uint_t                         n;
    uint64_t                           words[NGX_HTTP_IOTHUB_IDENTITY_OUT];
} ngx_http_iothub_identity_out_t;


static void ngx_http_iothub_identity_sip_init(
    ngx_http_iothub_identity_sip_t *s, uint64_t k0, uint64_t k1);
static ngx_inline void ngx_http_iothub_identity_sip_round(
    ngx_http_iothub_identity_sip_t *s);
static ngx_inline void ngx_http_iothub_identity_sip_word(
    ngx_http_iothub_identity_sip_t *s, uint64_t m);
static uint64_t ngx_http_iothub_identity_sip_final(
    ngx_http_iothub_identity_sip_t *s, uint64_t m, size_t len);
static ngx_inline uint64_t ngx_http_iothub_identity_load(const u_char *p);

static uint64_t ngx_http_iothub_identity_buckets(size_t size);
static ngx_inline uint64_t *ngx_http_iothub_identity_bucket(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash);
static ngx_inline uint64_t ngx_http_iothub_identity_word(uint64_t hash,
    ngx_uint_t state, time_t now);
static ngx_inline ngx_uint_t ngx_http_iothub_identity_age(uint64_t word,
    time_t now);
static ngx_inline ngx_uint_t ngx_http_iothub_identity_is_state(
    uint64_t word);
static ngx_uint_t ngx_http_iothub_identity_report(ngx_uint_t state,
    ngx_uint_t age);
static void ngx_http_iothub_identity_scan(ngx_http_iothub_identity_scan_t *sc,
    uint64_t *bucket, uint64_t hash, ngx_uint_t asked, time_t now);
static ngx_uint_t ngx_http_iothub_identity_swap(
    ngx_http_iothub_identity_shm_t *shm, uint64_t *p, uint64_t old,
    uint64_t word);
static void ngx_http_iothub_identity_count(ngx_http_iothub_identity_shm_t *shm,
    uint64_t word, uint64_t n);
static ngx_int_t ngx_http_iothub_identity_insert(
    ngx_http_iothub_identity_shm_t *shm, ngx_http_iothub_identity_scan_t *sc,
    uint64_t *bucket, uint64_t hash, uint64_t word, time_t now);
static void ngx_http_iothub_identity_clear(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t asked);
static uint64_t ngx_http_iothub_identity_tidy(uint64_t word, ngx_uint_t age,
    time_t now);

static ngx_inline uint64_t *ngx_http_iothub_identity_lease(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash);
static uint64_t ngx_http_iothub_identity_lease_word(uint64_t owner,
    ngx_msec_t now_ms);

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


size_t
ngx_http_iothub_identity_min_size(void)
{
    return offsetof(ngx_http_iothub_identity_shm_t, buckets)
           + NGX_HTTP_IOTHUB_IDENTITY_MIN_BUCKETS
             * sizeof(ngx_http_iothub_identity_bucket_t);
}


ngx_int_t
ngx_http_iothub_identity_init(void *mem, size_t size, const u_char key[16])
{
    ngx_http_iothub_identity_shm_t  *shm;

    if (size < ngx_http_iothub_identity_min_size()
        || (uintptr_t) mem % NGX_HTTP_IOTHUB_IDENTITY_LINE != 0)
    {
        return NGX_ERROR;
    }

    shm = mem;

    shm->version = NGX_HTTP_IOTHUB_IDENTITY_VERSION;
    shm->size = size;
    shm->nbuckets = ngx_http_iothub_identity_buckets(size);
    shm->key[0] = ngx_http_iothub_identity_load(key);
    shm->key[1] = ngx_http_iothub_identity_load(key + 8);
    shm->magic = NGX_HTTP_IOTHUB_IDENTITY_MAGIC;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_identity_check(void *mem, size_t size)
{
    ngx_http_iothub_identity_shm_t  *shm;

    if (size < ngx_http_iothub_identity_min_size()
        || (uintptr_t) mem % NGX_HTTP_IOTHUB_IDENTITY_LINE != 0)
    {
        return NGX_DECLINED;
    }

    shm = mem;

    if (shm->magic != NGX_HTTP_IOTHUB_IDENTITY_MAGIC
        || shm->version != NGX_HTTP_IOTHUB_IDENTITY_VERSION
        || shm->size != size
        || shm->nbuckets != ngx_http_iothub_identity_buckets(size))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


uint64_t
ngx_http_iothub_identity_hash(const ngx_http_iothub_identity_shm_t *shm,
    const u_char *id, size_t len)
{
    uint64_t                        m;
    ngx_uint_t                      i;
    const u_char                   *last;
    ngx_http_iothub_identity_sip_t  s;

    ngx_http_iothub_identity_sip_init(&s, shm->key[0], shm->key[1]);

    for (last = id + (len & ~(size_t) 7); id < last; id += 8) {
        ngx_http_iothub_identity_sip_word(&s,
                                          ngx_http_iothub_identity_load(id));
    }

    m = 0;

    for (i = 0; i < (len & 7); i++) {
        m |= (uint64_t) id[i] << (8 * i);
    }

    return ngx_http_iothub_identity_sip_final(&s, m, len);
}


void
ngx_http_iothub_identity_prefetch(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash)
{
    __builtin_prefetch(ngx_http_iothub_identity_bucket(shm, hash));
}


ngx_uint_t
ngx_http_iothub_identity_lookup(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now, time_t *age)
{
    uint64_t     word, found, *bucket;
    ngx_uint_t   i, seconds;

    bucket = ngx_http_iothub_identity_bucket(shm, hash);
    found = 0;

    /* from the top: where a device is there twice, its lower word stays */

    for (i = NGX_HTTP_IOTHUB_IDENTITY_WORDS; i-- > 0; /* void */ ) {
        word = __atomic_load_n(&bucket[i], __ATOMIC_ACQUIRE);

        if (ngx_http_iothub_identity_same(word, hash)
            && ngx_http_iothub_identity_is_state(word))
        {
            found = word;
        }
    }

    seconds = found ? ngx_http_iothub_identity_age(found, now) : 0;

    if (age) {
        *age = seconds;
    }

    return ngx_http_iothub_identity_report(
                          ngx_http_iothub_identity_state(found), seconds);
}


void
ngx_http_iothub_identity_set(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t state, time_t now)
{
    uint64_t                          old, word, *bucket;
    ngx_http_iothub_identity_scan_t   sc;

    if (state < NGX_HTTP_IOTHUB_IDENTITY_KNOWN
        || state > NGX_HTTP_IOTHUB_IDENTITY_BLOCKED)
    {
        ngx_http_iothub_identity_clear(shm, hash, 0);
        return;
    }

    bucket = ngx_http_iothub_identity_bucket(shm, hash);
    word = ngx_http_iothub_identity_word(hash, state, now);

    for ( ;; ) {
        ngx_http_iothub_identity_scan(&sc, bucket, hash, 0, now);

        if (sc.found == NGX_HTTP_IOTHUB_IDENTITY_WORDS) {

            if (ngx_http_iothub_identity_insert(shm, &sc, bucket, hash, word,
                                                now)
                == NGX_OK)
            {
                return;
            }

            continue;
        }

        old = sc.words[sc.found];

        /* a line that is only read stays in the caches of all workers */

        if (state == NGX_HTTP_IOTHUB_IDENTITY_KNOWN
            && ngx_http_iothub_identity_state(old) == state
            && ngx_http_iothub_identity_age(old, now)
               < NGX_HTTP_IOTHUB_IDENTITY_FRESH_TIME)
        {
            return;
        }

        if (!ngx_http_iothub_identity_swap(shm, &bucket[sc.found], old, word))
        {
            continue;
        }

        if (sc.second != NGX_HTTP_IOTHUB_IDENTITY_WORDS) {
            (void) ngx_http_iothub_identity_swap(shm, &bucket[sc.second],
                                                 sc.words[sc.second], 0);
        }

        return;
    }
}


void
ngx_http_iothub_identity_forget(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash)
{
    ngx_http_iothub_identity_clear(shm, hash, 0);
}


ngx_int_t
ngx_http_iothub_identity_forget_if(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t state, time_t started)
{
    uint64_t                          old, *bucket;
    ngx_uint_t                        since;
    ngx_http_iothub_identity_scan_t   sc;

    bucket = ngx_http_iothub_identity_bucket(shm, hash);

    for ( ;; ) {
        ngx_http_iothub_identity_scan(&sc, bucket, hash, 0, started);

        if (sc.found == NGX_HTTP_IOTHUB_IDENTITY_WORDS) {
            return NGX_OK;
        }

        old = sc.words[sc.found];

        /* an age is 0 too if the word was set after "started" */

        since = ngx_http_iothub_identity_age(old, started);

        if (since < 2
            || ngx_http_iothub_identity_report(
                            ngx_http_iothub_identity_state(old), since)
               != state)
        {
            return NGX_DECLINED;
        }

        (void) ngx_http_iothub_identity_swap(shm, &bucket[sc.found], old, 0);
    }
}


ngx_int_t
ngx_http_iothub_identity_ask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now)
{
    uint64_t                          old, word, *bucket;
    ngx_http_iothub_identity_scan_t   sc;

    bucket = ngx_http_iothub_identity_bucket(shm, hash);
    word = ngx_http_iothub_identity_word(hash, NGX_HTTP_IOTHUB_IDENTITY_ASKED,
                                         now);

    for ( ;; ) {
        ngx_http_iothub_identity_scan(&sc, bucket, hash, 1, now);

        if (sc.found == NGX_HTTP_IOTHUB_IDENTITY_WORDS) {

            if (ngx_http_iothub_identity_insert(shm, &sc, bucket, hash, word,
                                                now)
                == NGX_OK)
            {
                return NGX_OK;
            }

            continue;
        }

        old = sc.words[sc.found];

        if (ngx_http_iothub_identity_age(old, now)
            < NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME)
        {
            return NGX_DECLINED;
        }

        if (ngx_http_iothub_identity_swap(shm, &bucket[sc.found], old, word))
        {
            return NGX_OK;
        }
    }
}


void
ngx_http_iothub_identity_unask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash)
{
    ngx_http_iothub_identity_clear(shm, hash, 1);
}


ngx_int_t
ngx_http_iothub_identity_lease_take(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_msec_t now_ms, uint64_t *token)
{
    uint64_t  old, word, left, owner, *lease;

    lease = ngx_http_iothub_identity_lease(shm, hash);
    old = __atomic_load_n(lease, __ATOMIC_ACQUIRE);

    /*
     * A worker's clock may be behind that of the one who took the lease, so
     * somewhat more than a whole lease may be left.
     */

    left = (old - (now_ms >> NGX_HTTP_IOTHUB_IDENTITY_TICK_SHIFT))
           & NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK;

    if (old != 0
        && left > 0
        && left <= NGX_HTTP_IOTHUB_IDENTITY_LEASE_TICKS
                   + NGX_HTTP_IOTHUB_IDENTITY_SKEW_TICKS)
    {
        return ngx_http_iothub_identity_lease_is_of(old, hash) ? NGX_BUSY
                                                               : NGX_AGAIN;
    }

    do {
        owner = __atomic_add_fetch(&shm->serial, 1, __ATOMIC_RELAXED)
                & NGX_HTTP_IOTHUB_IDENTITY_SERIAL_MASK;
    } while (owner == 0);

    owner = owner << NGX_HTTP_IOTHUB_IDENTITY_STATE_SHIFT
            | ngx_http_iothub_identity_lease_print(hash);

    word = ngx_http_iothub_identity_lease_word(owner, now_ms);

    if (!__atomic_compare_exchange_n(lease, &old, word, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
    {
        return ngx_http_iothub_identity_lease_is_of(old, hash) ? NGX_BUSY
                                                               : NGX_AGAIN;
    }

    *token = word;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_identity_lease_renew(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, uint64_t *token, ngx_msec_t now_ms)
{
    uint64_t  old, word, *lease;

    lease = ngx_http_iothub_identity_lease(shm, hash);
    old = *token;
    word = ngx_http_iothub_identity_lease_word(old, now_ms);

    if (!__atomic_compare_exchange_n(lease, &old, word, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
    {
        return NGX_DECLINED;
    }

    *token = word;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_identity_lease_release(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, uint64_t token)
{
    uint64_t  *lease;

    lease = ngx_http_iothub_identity_lease(shm, hash);

    if (token == 0
        || !__atomic_compare_exchange_n(lease, &token, 0, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


void
ngx_http_iothub_identity_sweep(ngx_http_iothub_identity_shm_t *shm,
    ngx_uint_t n, time_t now)
{
    uint64_t     i, old, word, from, *p;
    ngx_uint_t   w;

    n = ngx_min(n, shm->nbuckets);
    from = __atomic_fetch_add(&shm->cursor, n, __ATOMIC_RELAXED);

    for (i = 0; i < n; i++) {
        p = shm->buckets[(from + i) % shm->nbuckets].words;

        for (w = 0; w < NGX_HTTP_IOTHUB_IDENTITY_WORDS; w++) {
            old = __atomic_load_n(&p[w], __ATOMIC_ACQUIRE);

            if (old == 0) {
                continue;
            }

            word = ngx_http_iothub_identity_tidy(old,
                              ngx_http_iothub_identity_age(old, now), now);

            if (word != old) {
                (void) ngx_http_iothub_identity_swap(shm, &p[w], old, word);
            }
        }
    }
}


void
ngx_http_iothub_identity_stat(ngx_http_iothub_identity_shm_t *shm,
    ngx_http_iothub_identity_stat_t *stat)
{
    stat->capacity = shm->nbuckets * NGX_HTTP_IOTHUB_IDENTITY_WORDS;
    stat->known = __atomic_load_n(&shm->known, __ATOMIC_RELAXED);
    stat->settling = __atomic_load_n(&shm->settling, __ATOMIC_RELAXED);
    stat->blocked = __atomic_load_n(&shm->blocked, __ATOMIC_RELAXED);
    stat->evicted = __atomic_load_n(&shm->evicted, __ATOMIC_RELAXED);
}


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
    ngx_http_iothub_identity_sip_init(&out.sum, 0, 0);

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
                 ngx_http_iothub_identity_sip_final(&out.sum, 0, out.total));
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


/* SipHash-2-4, Aumasson and Bernstein, https://131002.net/siphash/ */

static void
ngx_http_iothub_identity_sip_init(ngx_http_iothub_identity_sip_t *s,
    uint64_t k0, uint64_t k1)
{
    s->v0 = k0 ^ 0x736f6d6570736575ULL;
    s->v1 = k1 ^ 0x646f72616e646f6dULL;
    s->v2 = k0 ^ 0x6c7967656e657261ULL;
    s->v3 = k1 ^ 0x7465646279746573ULL;
}


static ngx_inline void
ngx_http_iothub_identity_sip_round(ngx_http_iothub_identity_sip_t *s)
{
    s->v0 += s->v1;
    s->v1 = ngx_http_iothub_identity_rotl(s->v1, 13) ^ s->v0;
    s->v0 = ngx_http_iothub_identity_rotl(s->v0, 32);

    s->v2 += s->v3;
    s->v3 = ngx_http_iothub_identity_rotl(s->v3, 16) ^ s->v2;

    s->v0 += s->v3;
    s->v3 = ngx_http_iothub_identity_rotl(s->v3, 21) ^ s->v0;

    s->v2 += s->v1;
    s->v1 = ngx_http_iothub_identity_rotl(s->v1, 17) ^ s->v2;
    s->v2 = ngx_http_iothub_identity_rotl(s->v2, 32);
}


static ngx_inline void
ngx_http_iothub_identity_sip_word(ngx_http_iothub_identity_sip_t *s,
    uint64_t m)
{
    s->v3 ^= m;
    ngx_http_iothub_identity_sip_round(s);
    ngx_http_iothub_identity_sip_round(s);
    s->v0 ^= m;
}


/* m: the bytes that fill no word; len: of all bytes */

static uint64_t
ngx_http_iothub_identity_sip_final(ngx_http_iothub_identity_sip_t *s,
    uint64_t m, size_t len)
{
    ngx_http_iothub_identity_sip_word(s, m | (uint64_t) len << 56);

    s->v2 ^= 0xff;
    ngx_http_iothub_identity_sip_round(s);
    ngx_http_iothub_identity_sip_round(s);
    ngx_http_iothub_identity_sip_round(s);
    ngx_http_iothub_identity_sip_round(s);

    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}


static ngx_inline uint64_t
ngx_http_iothub_identity_load(const u_char *p)
{
    uint64_t  m;

    ngx_memcpy(&m, p, sizeof(m));

#if !(NGX_HAVE_LITTLE_ENDIAN)
    m = __builtin_bswap64(m);
#endif

    return m;
}


static uint64_t
ngx_http_iothub_identity_buckets(size_t size)
{
    return (size - offsetof(ngx_http_iothub_identity_shm_t, buckets))
           / sizeof(ngx_http_iothub_identity_bucket_t);
}


static ngx_inline uint64_t *
ngx_http_iothub_identity_bucket(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash)
{
    return shm->buckets[((hash >> 32) * shm->nbuckets) >> 32].words;
}


static ngx_inline uint64_t
ngx_http_iothub_identity_word(uint64_t hash, ngx_uint_t state, time_t now)
{
    return hash << NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT
           | (uint64_t) state << NGX_HTTP_IOTHUB_IDENTITY_STATE_SHIFT
           | ((uint64_t) now & NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK);
}


/*
 * Seconds since a word was set.  What lies a little ahead comes from a worker
 * whose clock is; what lies far ahead, after the clock was set back, counts
 * as very old, so that no state lasts longer than it should.
 */

static ngx_inline ngx_uint_t
ngx_http_iothub_identity_age(uint64_t word, time_t now)
{
    uint64_t  age;

    age = ((uint64_t) now - word) & NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK;

    return (age > NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK
                  - NGX_HTTP_IOTHUB_IDENTITY_SKEW)
           ? 0 : age;
}


/* true if the word is a device's state: neither free, nor an ask, nor junk */

static ngx_inline ngx_uint_t
ngx_http_iothub_identity_is_state(uint64_t word)
{
    return ngx_http_iothub_identity_state(word) - 1
           < NGX_HTTP_IOTHUB_IDENTITY_BLOCKED;
}


static ngx_uint_t
ngx_http_iothub_identity_report(ngx_uint_t state, ngx_uint_t age)
{
    if (state == NGX_HTTP_IOTHUB_IDENTITY_SETTLING
        && age >= NGX_HTTP_IOTHUB_IDENTITY_SETTLE_TIME)
    {
        return NGX_HTTP_IOTHUB_IDENTITY_KNOWN;
    }

    if (state == NGX_HTTP_IOTHUB_IDENTITY_BLOCKED
        && age >= NGX_HTTP_IOTHUB_IDENTITY_BLOCK_TIME)
    {
        return NGX_HTTP_IOTHUB_IDENTITY_RECHECK;
    }

    return state;
}


/*
 * Reads a bucket and finds the device's state, or when it was asked about,
 * and the word that a new one could take.  From the top, like lookup().
 */

static void
ngx_http_iothub_identity_scan(ngx_http_iothub_identity_scan_t *sc,
    uint64_t *bucket, uint64_t hash, ngx_uint_t asked, time_t now)
{
    uint64_t    word;
    ngx_uint_t  i, rank, highest, is_asked;

    sc->found = NGX_HTTP_IOTHUB_IDENTITY_WORDS;
    sc->second = NGX_HTTP_IOTHUB_IDENTITY_WORDS;
    sc->free = NGX_HTTP_IOTHUB_IDENTITY_WORDS;
    sc->oldest = 0;
    highest = 0;

    for (i = NGX_HTTP_IOTHUB_IDENTITY_WORDS; i-- > 0; /* void */ ) {
        word = __atomic_load_n(&bucket[i], __ATOMIC_SEQ_CST);
        sc->words[i] = word;

        is_asked = ngx_http_iothub_identity_state(word)
                   == NGX_HTTP_IOTHUB_IDENTITY_ASKED;

        if (!is_asked && !ngx_http_iothub_identity_is_state(word)) {
            sc->free = i;
            continue;
        }

        if (is_asked == asked && ngx_http_iothub_identity_same(word, hash)) {
            sc->second = sc->found;
            sc->found = i;
            continue;
        }

        rank = ngx_http_iothub_identity_age(word, now);

        if (is_asked && rank >= NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME) {
            sc->free = i;
            continue;
        }

        /* of the same age, KNOWN goes first: it costs least to lose */

        rank = 2 * rank + (ngx_http_iothub_identity_state(word)
                           == NGX_HTTP_IOTHUB_IDENTITY_KNOWN);

        if (rank >= highest) {
            highest = rank;
            sc->oldest = i;
        }
    }
}


/* changes a word of a bucket, if it still is what it was, and counts */

static ngx_uint_t
ngx_http_iothub_identity_swap(ngx_http_iothub_identity_shm_t *shm,
    uint64_t *p, uint64_t old, uint64_t word)
{
    uint64_t  expected;

    expected = old;

    if (!__atomic_compare_exchange_n(p, &expected, word, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED))
    {
        return 0;
    }

    if (ngx_http_iothub_identity_state(old)
        != ngx_http_iothub_identity_state(word))
    {
        ngx_http_iothub_identity_count(shm, old, (uint64_t) -1);
        ngx_http_iothub_identity_count(shm, word, 1);
    }

    return 1;
}


static void
ngx_http_iothub_identity_count(ngx_http_iothub_identity_shm_t *shm,
    uint64_t word, uint64_t n)
{
    uint64_t  *counter;

    switch (ngx_http_iothub_identity_state(word)) {

    case NGX_HTTP_IOTHUB_IDENTITY_KNOWN:
        counter = &shm->known;
        break;

    case NGX_HTTP_IOTHUB_IDENTITY_SETTLING:
        counter = &shm->settling;
        break;

    case NGX_HTTP_IOTHUB_IDENTITY_BLOCKED:
        counter = &shm->blocked;
        break;

    case NGX_HTTP_IOTHUB_IDENTITY_ASKED:
        counter = &shm->asked;
        break;

    default:
        return;
    }

    (void) __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}


/*
 * Stores a word for a device that the scan has not found.  Another worker may
 * have done the same at another place, if a word was freed meanwhile: both
 * stores are in one order for all, so at least one of the two sees the other,
 * and whoever does takes its own back and starts again.  NGX_AGAIN says that.
 */

static ngx_int_t
ngx_http_iothub_identity_insert(ngx_http_iothub_identity_shm_t *shm,
    ngx_http_iothub_identity_scan_t *sc, uint64_t *bucket, uint64_t hash,
    uint64_t word, time_t now)
{
    uint64_t    old;
    ngx_uint_t  i, asked, evict;

    evict = sc->free == NGX_HTTP_IOTHUB_IDENTITY_WORDS;
    i = evict ? sc->oldest : sc->free;
    old = sc->words[i];

    if (!ngx_http_iothub_identity_swap(shm, &bucket[i], old, word)) {
        return NGX_AGAIN;
    }

    if (evict) {
        (void) __atomic_fetch_add(&shm->evicted, 1, __ATOMIC_RELAXED);
    }

    asked = ngx_http_iothub_identity_state(word)
            == NGX_HTTP_IOTHUB_IDENTITY_ASKED;

    ngx_http_iothub_identity_scan(sc, bucket, hash, asked, now);

    if (sc->second == NGX_HTTP_IOTHUB_IDENTITY_WORDS) {
        return NGX_OK;
    }

    (void) ngx_http_iothub_identity_swap(shm, &bucket[i], word, 0);

    return NGX_AGAIN;
}


static void
ngx_http_iothub_identity_clear(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t asked)
{
    uint64_t                         *bucket;
    ngx_http_iothub_identity_scan_t   sc;

    bucket = ngx_http_iothub_identity_bucket(shm, hash);

    for ( ;; ) {
        ngx_http_iothub_identity_scan(&sc, bucket, hash, asked, 0);

        if (sc.found == NGX_HTTP_IOTHUB_IDENTITY_WORDS) {
            return;
        }

        (void) ngx_http_iothub_identity_swap(shm, &bucket[sc.found],
                                             sc.words[sc.found], 0);
    }
}


/* what a word of that age should be, with its time in terms of now */

static uint64_t
ngx_http_iothub_identity_tidy(uint64_t word, ngx_uint_t age, time_t now)
{
    uint64_t    tag;
    ngx_uint_t  state;

    state = ngx_http_iothub_identity_state(word);

    if (state == NGX_HTTP_IOTHUB_IDENTITY_ASKED) {

        if (age >= NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME) {
            return 0;
        }

    } else if (!ngx_http_iothub_identity_is_state(word)) {
        return 0;

    } else if (state == NGX_HTTP_IOTHUB_IDENTITY_SETTLING) {
        state = ngx_http_iothub_identity_report(state, age);
    }

    tag = word >> NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT;
    age = ngx_min(age, NGX_HTTP_IOTHUB_IDENTITY_OLD_TIME);

    return ngx_http_iothub_identity_word(tag, state, now - (time_t) age);
}


static ngx_inline uint64_t *
ngx_http_iothub_identity_lease(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash)
{
    return &shm->leases[ngx_http_iothub_identity_lease_of(hash)];
}


static uint64_t
ngx_http_iothub_identity_lease_word(uint64_t owner, ngx_msec_t now_ms)
{
    uint64_t  until;

    until = (now_ms >> NGX_HTTP_IOTHUB_IDENTITY_TICK_SHIFT)
            + NGX_HTTP_IOTHUB_IDENTITY_LEASE_TICKS;

    return (owner & ~(uint64_t) NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK)
           | (until & NGX_HTTP_IOTHUB_IDENTITY_TIME_MASK);
}


static ngx_int_t
ngx_http_iothub_identity_out(ngx_http_iothub_identity_out_t *out,
    uint64_t word)
{
    out->words[out->n++] = word;
    out->total += sizeof(uint64_t);

    ngx_http_iothub_identity_sip_word(&out->sum,
                       ngx_http_iothub_identity_load((u_char *) &word));

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

        if (ngx_http_iothub_identity_is_state(word)
            || ngx_http_iothub_identity_state(word)
               == NGX_HTTP_IOTHUB_IDENTITY_ASKED)
        {
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
    ngx_http_iothub_identity_sip_t  sum;

    if (n < NGX_HTTP_IOTHUB_IDENTITY_FILE_WORDS + 2
        || ngx_http_iothub_identity_get(p, 0)
           != NGX_HTTP_IOTHUB_IDENTITY_FILE_MAGIC)
    {
        return NGX_ERROR;
    }

    ngx_http_iothub_identity_sip_init(&sum, 0, 0);

    for (i = 0; i < n - 1; i++) {
        ngx_http_iothub_identity_sip_word(&sum,
                     ngx_http_iothub_identity_load(p + i * sizeof(uint64_t)));
    }

    return (ngx_http_iothub_identity_sip_final(&sum, 0, i * sizeof(uint64_t))
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

            if (!ngx_http_iothub_identity_is_state(word)
                && ngx_http_iothub_identity_state(word)
                   != NGX_HTTP_IOTHUB_IDENTITY_ASKED)
            {
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
    time_t      saved, passed;
    uint64_t    head, word, *bucket;
    ngx_uint_t  w;

    saved = ngx_http_iothub_identity_get(p, 3);
    passed = (now > saved) ? now - saved : 0;

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
            word = ngx_http_iothub_identity_tidy(word,
                      ngx_http_iothub_identity_age(word, saved) + passed, now);

            (void) ngx_http_iothub_identity_swap(shm, &bucket[w], 0, word);
        }
    }
}
