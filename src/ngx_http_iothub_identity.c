
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_identity.h"
#include "ngx_http_iothub_siphash.h"


#define NGX_HTTP_IOTHUB_IDENTITY_MAGIC        0x494f544855424944ULL

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


#define ngx_http_iothub_identity_state(word)                                  \
    (((word) >> NGX_HTTP_IOTHUB_IDENTITY_STATE_SHIFT)                         \
     & NGX_HTTP_IOTHUB_IDENTITY_STATE_MASK)

#define ngx_http_iothub_identity_same(word, hash)                             \
    ((((word) ^ ((hash) << NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT))               \
      >> NGX_HTTP_IOTHUB_IDENTITY_TAG_SHIFT) == 0)

/* what a scan of a bucket has found for one device; indexes are WORDS if not */

typedef struct {
    uint64_t   words[NGX_HTTP_IOTHUB_IDENTITY_WORDS];
    ngx_uint_t found;                  /* the lowest, the only one but for */
    ngx_uint_t second;                 /* a moment */
    ngx_uint_t free;
    ngx_uint_t oldest;
} ngx_http_iothub_identity_scan_t;


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
static void ngx_http_iothub_identity_count(ngx_http_iothub_identity_shm_t *shm,
    uint64_t word, uint64_t n);
static ngx_int_t ngx_http_iothub_identity_insert(
    ngx_http_iothub_identity_shm_t *shm, ngx_http_iothub_identity_scan_t *sc,
    uint64_t *bucket, uint64_t hash, uint64_t word, time_t now);
static ngx_int_t ngx_http_iothub_identity_put_ask(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash, time_t now, time_t put,
    ngx_uint_t age);
static void ngx_http_iothub_identity_clear(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t asked);
static uint64_t ngx_http_iothub_identity_tidy(uint64_t word, ngx_uint_t age,
    time_t now);


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
    shm->key[0] = ngx_http_iothub_siphash_load(key);
    shm->key[1] = ngx_http_iothub_siphash_load(key + 8);
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
    ngx_http_iothub_siphash_t  s;

    ngx_http_iothub_siphash_init(&s, shm->key[0], shm->key[1]);

    for (last = id + (len & ~(size_t) 7); id < last; id += 8) {
        ngx_http_iothub_siphash_word(&s,
                                          ngx_http_iothub_siphash_load(id));
    }

    m = 0;

    for (i = 0; i < (len & 7); i++) {
        m |= (uint64_t) id[i] << (8 * i);
    }

    return ngx_http_iothub_siphash_final(&s, m, len);
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
    /* as if it had been put some time ago: so it is over soon */

    return ngx_http_iothub_identity_put_ask(shm, hash, now,
                                       now - NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME
                                       + NGX_HTTP_IOTHUB_IDENTITY_ASK_PENDING,
                                       NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME);
}


void
ngx_http_iothub_identity_asked(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now)
{
    (void) ngx_http_iothub_identity_put_ask(shm, hash, now, now, 0);
}


/* NGX_DECLINED: there is a question already, younger than so many seconds */

static ngx_int_t
ngx_http_iothub_identity_put_ask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now, time_t put, ngx_uint_t age)
{
    uint64_t                          old, word, *bucket;
    ngx_http_iothub_identity_scan_t   sc;

    bucket = ngx_http_iothub_identity_bucket(shm, hash);
    word = ngx_http_iothub_identity_word(hash, NGX_HTTP_IOTHUB_IDENTITY_ASKED,
                                         put);

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

        if (ngx_http_iothub_identity_age(old, now) < age) {
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


ngx_uint_t
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


ngx_uint_t
ngx_http_iothub_identity_is_used(uint64_t word)
{
    return ngx_http_iothub_identity_is_state(word)
           || ngx_http_iothub_identity_state(word)
              == NGX_HTTP_IOTHUB_IDENTITY_ASKED;
}


uint64_t
ngx_http_iothub_identity_moved(uint64_t word, time_t then, time_t now)
{
    ngx_uint_t  age;

    age = ngx_http_iothub_identity_age(word, then);

    if (now > then) {
        age += now - then;
    }

    return ngx_http_iothub_identity_tidy(word, age, now);
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
