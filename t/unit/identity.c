
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the identity room.  With --bench it prints what a lookup
 * costs instead.
 */

#include "tap.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "ngx_http_iothub_identity.h"
#include "ngx_http_iothub_identity_file.h"
#include "ngx_http_iothub_identity_lease.h"


#define UNKNOWN   NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN
#define KNOWN     NGX_HTTP_IOTHUB_IDENTITY_KNOWN
#define SETTLING  NGX_HTTP_IOTHUB_IDENTITY_SETTLING
#define BLOCKED   NGX_HTTP_IOTHUB_IDENTITY_BLOCKED
#define RECHECK   NGX_HTTP_IOTHUB_IDENTITY_RECHECK

#define NOW       1700000000
#define WRAP      (1 << 24)

#define MILLION   1000000

#define lookup    ngx_http_iothub_identity_lookup
#define set       ngx_http_iothub_identity_set


typedef ngx_http_iothub_identity_shm_t  shm_t;


typedef struct {
    ngx_uint_t  set;
    time_t      passed;
    ngx_uint_t  reported;
} expiry_t;


typedef struct {
    u_char      data[65536];
    size_t      len;
    ngx_uint_t  pieces;
    ngx_int_t   rc;
} file_t;


static u_char  key[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                           15 };

static ngx_str_t  host = ngx_string("contoso.azure-devices.net");


static void *
zeroed(size_t size)
{
    void  *p;

    if (posix_memalign(&p, 4096, size) != 0) {
        abort();
    }

    memset(p, 0, size);

    return p;
}


static shm_t *
table(size_t size)
{
    void  *p;

    p = zeroed(size);

    if (ngx_http_iothub_identity_init(p, size, key) != NGX_OK) {
        abort();
    }

    return p;
}


static shm_t *
small(void)
{
    return table(ngx_http_iothub_identity_min_size());
}


/* the hash of the nth device of a bucket */

static uint64_t
nth(shm_t *shm, uint64_t bucket, uint64_t n)
{
    uint64_t  high;

    high = ((bucket << 32) + shm->nbuckets - 1) / shm->nbuckets;

    return high << 32 | n;
}


static ngx_uint_t
state(shm_t *shm, uint64_t hash, time_t now)
{
    return lookup(shm, hash, now, NULL);
}


static ngx_uint_t
words(shm_t *shm)
{
    ngx_uint_t  i, w, n;

    n = 0;

    for (i = 0; i < shm->nbuckets; i++) {
        for (w = 0; w < NGX_HTTP_IOTHUB_IDENTITY_WORDS; w++) {
            n += shm->buckets[i].words[w] != 0;
        }
    }

    return n;
}


static void
test_init(void)
{
    size_t   size;
    shm_t   *shm;
    u_char  *p;

    size = ngx_http_iothub_identity_min_size();
    p = zeroed(size + 4096);

    is(ngx_http_iothub_identity_check(p, size), NGX_DECLINED,
       "zeroed memory is no table");
    is(ngx_http_iothub_identity_init(p, size - 1, key), NGX_ERROR,
       "one byte less than the minimum is too small");
    is(ngx_http_iothub_identity_init(p, 0, key), NGX_ERROR,
       "nothing is too small");
    is(ngx_http_iothub_identity_init(p + 8, size, key), NGX_ERROR,
       "memory must start with a cache line");
    is(ngx_http_iothub_identity_check(p, size), NGX_DECLINED,
       "a refused init leaves no table");

    is(ngx_http_iothub_identity_init(p, size, key), NGX_OK,
       "the minimum is enough");
    is(ngx_http_iothub_identity_check(p, size), NGX_OK, "then it is a table");
    is(ngx_http_iothub_identity_check(p, size + 64), NGX_DECLINED,
       "but not one of another size");
    is(ngx_http_iothub_identity_check(p, 64), NGX_DECLINED,
       "nor one of hardly any size");

    shm = (shm_t *) p;

    ok((uintptr_t) shm->buckets % 64 == 0 && (uintptr_t) shm->leases % 64 == 0
       && (uintptr_t) &shm->known % 64 == 0,
       "buckets, leases and counters start with a cache line");
    ok((u_char *) &shm->buckets[shm->nbuckets] <= p + size
       && (u_char *) &shm->buckets[shm->nbuckets + 1] > p + size,
       "all of the memory is used and no more");

    shm->version++;
    is(ngx_http_iothub_identity_check(p, size), NGX_DECLINED,
       "another version is no table");

    free(p);
}


/* reference vectors of the authors of SipHash, also what openssl mac says */

static void
test_hash(void)
{
    shm_t      *shm;
    u_char      id[64];
    ngx_uint_t  i;

    static struct {
        size_t    len;
        uint64_t  hash;
    } vectors[] = {
        { 0,  0x726fdb47dd0e0e31ULL },
        { 1,  0x74f839c593dc67fdULL },
        { 7,  0xab0200f58b01d137ULL },
        { 8,  0x93f5f5799a932462ULL },
        { 15, 0xa129ca6149be45e5ULL },
        { 63, 0x958a324ceb064572ULL }
    };

    shm = small();

    for (i = 0; i < sizeof(id); i++) {
        id[i] = i;
    }

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        ok(ngx_http_iothub_identity_hash(shm, id, vectors[i].len)
           == vectors[i].hash,
           "SipHash-2-4 of %d bytes", (int) vectors[i].len);
    }

    shm->key[1] ^= 1;

    ok(ngx_http_iothub_identity_hash(shm, id, 15) != vectors[4].hash,
       "another key, another hash");

    free(shm);
}


static void
test_states(void)
{
    shm_t       *shm;
    time_t       age;
    uint64_t     a, b;
    ngx_uint_t   i;

    static expiry_t  expiry[] = {
        { KNOWN,    0,                  KNOWN },
        { KNOWN,    86400 * 100,        KNOWN },
        { SETTLING, 0,                  SETTLING },
        { SETTLING, 14,                 SETTLING },
        { SETTLING, 15,                 KNOWN },
        { SETTLING, 86400 * 100,        KNOWN },
        { BLOCKED,  0,                  BLOCKED },
        { BLOCKED,  599,                BLOCKED },
        { BLOCKED,  600,                RECHECK },
        { BLOCKED,  86400 * 100,        RECHECK },

        /* a worker whose clock is behind, and a clock that was set back */
        { SETTLING, -1,                 SETTLING },
        { BLOCKED,  -59,                BLOCKED },
        { KNOWN,    -59,                KNOWN },
        { KNOWN,    -3600,              KNOWN },
        { SETTLING, -3600,              KNOWN },
        { BLOCKED,  -3600,              RECHECK },
        { BLOCKED,  -86400 * 365,       RECHECK },

        /* a clock that was set ahead */
        { BLOCKED,  86400 * 365 * 10,   RECHECK },
        { SETTLING, 86400 * 365 * 10,   KNOWN }
    };

    shm = small();
    a = nth(shm, 3, 1);
    b = nth(shm, 3, 2);

    age = 99;
    is(lookup(shm, a, NOW, &age), UNKNOWN, "an empty table knows nobody");
    is(age, 0, "and says 0 for the age");
    is(state(shm, 0, NOW), UNKNOWN, "not even the hash 0");

    for (i = 0; i < sizeof(expiry) / sizeof(expiry_t); i++) {
        set(shm, a, expiry[i].set, NOW);
        is(state(shm, a, NOW + expiry[i].passed), expiry[i].reported,
           "state %d after %ld s is %d", (int) expiry[i].set,
           (long) expiry[i].passed, (int) expiry[i].reported);
    }

    is(words(shm), 1, "one device stays one word");

    set(shm, a, BLOCKED, NOW);
    (void) lookup(shm, a, NOW + 77, &age);
    is(age, 77, "the age of a state");
    (void) lookup(shm, a, NOW - 5, &age);
    is(age, 0, "is never negative");

    is(state(shm, b, NOW), UNKNOWN, "another device of the bucket is unknown");
    set(shm, b, KNOWN, NOW);
    is(state(shm, a, NOW), BLOCKED, "setting it changes nothing of the first");
    is(state(shm, b, NOW), KNOWN, "it has its own state");

    set(shm, a, UNKNOWN, NOW);
    is(state(shm, a, NOW), UNKNOWN, "setting unknown forgets");
    set(shm, b, 9, NOW);
    is(state(shm, b, NOW), UNKNOWN, "and so does a state that is none");

    set(shm, 0, KNOWN, 0);
    is(state(shm, 0, 0), KNOWN, "hash 0 at time 0 can be known");

    free(shm);
}


static void
test_known_again(void)
{
    shm_t     *shm;
    time_t     age;
    uint64_t   a;

    shm = small();
    a = nth(shm, 0, 7);

    set(shm, a, KNOWN, NOW);
    set(shm, a, KNOWN, NOW + 599);
    (void) lookup(shm, a, NOW + 599, &age);
    is(age, 599, "what is freshly known is not written again");

    set(shm, a, KNOWN, NOW + 600);
    (void) lookup(shm, a, NOW + 600, &age);
    is(age, 0, "what was long known is");

    set(shm, a, SETTLING, NOW + 601);
    set(shm, a, KNOWN, NOW + 602);
    is(state(shm, a, NOW + 602), KNOWN, "a settling device becomes known");

    set(shm, a, KNOWN, NOW);
    set(shm, a, KNOWN, NOW - 86400);
    (void) lookup(shm, a, NOW - 86400, &age);
    is(age, 0, "what is known from a future is written");

    free(shm);
}


static void
test_wrap(void)
{
    shm_t     *shm;
    time_t     at, age;
    uint64_t   a;

    shm = small();
    a = nth(shm, 0, 7);
    at = (time_t) 101 * WRAP - 10;

    set(shm, a, BLOCKED, at);
    is(lookup(shm, a, at + 100, &age), BLOCKED, "blocked across the wrap");
    is(age, 100, "with its age");
    is(state(shm, a, at + 600), RECHECK, "ends on the other side");

    set(shm, a, SETTLING, at);
    is(state(shm, a, at + 14), SETTLING, "settling across the wrap");

    /* what the sweep is for */

    set(shm, a, BLOCKED, at);
    is(state(shm, a, at + WRAP + 5), BLOCKED,
       "left alone, a time looks young after 194 days");

    ngx_http_iothub_identity_sweep(shm, shm->nbuckets, at + WRAP / 4 * 3);
    is(state(shm, a, at + WRAP + 5), RECHECK, "swept once, it does not");
    is(state(shm, a, at + WRAP / 4 * 3), RECHECK, "and it is kept");

    free(shm);
}


static void
test_eviction(void)
{
    shm_t                            *shm;
    uint64_t                          i;
    ngx_http_iothub_identity_stat_t   st;

    shm = small();

    for (i = 0; i < 8; i++) {
        set(shm, nth(shm, 5, i), KNOWN, NOW + (i * 5) % 8);
    }

    ngx_http_iothub_identity_stat(shm, &st);
    is(st.evicted, 0, "eight devices fit into a bucket");
    is(st.known, 8, "and are counted");

    /* set at 0 5 2 7 4 1 6 3 */

    set(shm, nth(shm, 5, 8), KNOWN, NOW + 20);
    is(state(shm, nth(shm, 5, 0), NOW + 20), UNKNOWN, "the oldest goes first");

    set(shm, nth(shm, 5, 9), KNOWN, NOW + 20);
    is(state(shm, nth(shm, 5, 5), NOW + 20), UNKNOWN, "then the next");

    set(shm, nth(shm, 5, 2), SETTLING, NOW + 21);
    set(shm, nth(shm, 5, 10), KNOWN, NOW + 21);
    is(state(shm, nth(shm, 5, 7), NOW + 21), UNKNOWN,
       "one that was set again is not the oldest any more");
    is(state(shm, nth(shm, 5, 2), NOW + 21), SETTLING, "it stays");

    ngx_http_iothub_identity_stat(shm, &st);
    is(st.evicted, 3, "evictions are counted");
    is(st.known, 7, "who went is no longer known");
    is(st.settling, 1, "who stays is counted by its state");
    is(words(shm), 8, "the bucket is full and nothing else was touched");

    free(shm);

    /* a burst of creations within one second */

    shm = small();

    for (i = 0; i < 8; i++) {
        set(shm, nth(shm, 5, i), i == 3 ? KNOWN : SETTLING, NOW);
    }

    set(shm, nth(shm, 5, 8), SETTLING, NOW);
    is(state(shm, nth(shm, 5, 3), NOW), UNKNOWN,
       "of the same age, the known one goes");

    set(shm, nth(shm, 5, 9), SETTLING, NOW - 3600);
    is(state(shm, nth(shm, 5, 9), NOW - 3600), SETTLING,
       "after the clock was set back, a full bucket still takes one");

    free(shm);
}


static void
test_forget(void)
{
    shm_t     *shm;
    uint64_t   a;

    shm = small();
    a = nth(shm, 9, 1);

    ngx_http_iothub_identity_forget(shm, a);
    is(words(shm), 0, "forgetting nobody");

    set(shm, a, KNOWN, NOW);
    set(shm, nth(shm, 9, 2), KNOWN, NOW);
    ngx_http_iothub_identity_forget(shm, a);
    is(state(shm, a, NOW), UNKNOWN, "forgotten");
    is(state(shm, nth(shm, 9, 2), NOW), KNOWN, "the neighbour is not");

    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW), NGX_OK,
       "who is not there counts as forgotten");

    set(shm, a, KNOWN, NOW);
    is(ngx_http_iothub_identity_forget_if(shm, a, SETTLING, NOW + 10),
       NGX_DECLINED, "another state is not forgotten");
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW - 10),
       NGX_DECLINED, "nor what was set after the send started");
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW),
       NGX_DECLINED, "nor in the same second");
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW + 1),
       NGX_DECLINED, "nor the second before");
    is(state(shm, a, NOW), KNOWN, "it is still there");
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW + 2),
       NGX_OK, "what is older is forgotten");
    is(state(shm, a, NOW), UNKNOWN, "it is gone");

    set(shm, a, SETTLING, NOW);
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW + 14),
       NGX_DECLINED, "who settles is not known");
    is(ngx_http_iothub_identity_forget_if(shm, a, KNOWN, NOW + 15),
       NGX_OK, "until it is");

    set(shm, a, BLOCKED, NOW);
    is(ngx_http_iothub_identity_forget_if(shm, a, BLOCKED, NOW + 600),
       NGX_DECLINED, "who may be rechecked is not blocked");
    is(ngx_http_iothub_identity_forget_if(shm, a, RECHECK, NOW + 600),
       NGX_OK, "and is forgotten as such");

    free(shm);
}


static void
test_ask(void)
{
    shm_t                            *shm;
    uint64_t                          a, i;
    ngx_http_iothub_identity_stat_t   st;

    shm = small();
    a = nth(shm, 9, 1);

    is(ngx_http_iothub_identity_ask(shm, a, NOW), NGX_OK, "the first may ask");
    is(ngx_http_iothub_identity_ask(shm, a, NOW), NGX_DECLINED,
       "the second may not");
    is(ngx_http_iothub_identity_ask(shm, nth(shm, 9, 2), NOW), NGX_OK,
       "but about another device");
    is(state(shm, a, NOW), UNKNOWN, "having asked makes nobody known");

    set(shm, a, SETTLING, NOW);
    set(shm, a, KNOWN, NOW + 1);
    is(state(shm, a, NOW + 1), KNOWN, "the state has its own word");
    ngx_http_iothub_identity_forget(shm, a);
    is(state(shm, a, NOW + 1), UNKNOWN, "which is forgotten alone");

    is(ngx_http_iothub_identity_ask(shm, a, NOW + 119), NGX_DECLINED,
       "a question that runs is waited for");
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 120), NGX_OK,
       "but not for long");

    ngx_http_iothub_identity_asked(shm, a, NOW);
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 599), NGX_DECLINED,
       "answered: ten minutes are not over");
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 600), NGX_OK,
       "answered: now they are");
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 601), NGX_DECLINED,
       "and begin again");
    is(shm->asked, 2, "each is counted once");

    ngx_http_iothub_identity_unask(shm, a);
    ngx_http_iothub_identity_asked(shm, a, NOW + 1);
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 600), NGX_DECLINED,
       "an answer is kept of a question that was forgotten");

    ngx_http_iothub_identity_unask(shm, a);
    is(ngx_http_iothub_identity_ask(shm, a, NOW + 601), NGX_OK,
       "an ask can be taken back");
    is(ngx_http_iothub_identity_ask(shm, a, NOW - 86400), NGX_OK,
       "an ask from a future does not last");

    set(shm, a, BLOCKED, NOW);
    ngx_http_iothub_identity_unask(shm, a);
    is(state(shm, a, NOW), BLOCKED, "which changes no state");

    ngx_http_iothub_identity_unask(shm, nth(shm, 9, 2));

    for (i = 0; i < 7; i++) {
        set(shm, nth(shm, 11, i), KNOWN, NOW);
    }

    (void) ngx_http_iothub_identity_ask(shm, nth(shm, 11, 0), NOW + 1);
    set(shm, nth(shm, 11, 7), KNOWN, NOW + 601);

    ngx_http_iothub_identity_stat(shm, &st);
    is(st.evicted, 0, "an ask that is over gives its word to a device");
    is(shm->asked, 0, "and is no longer counted");

    free(shm);
}


static void
test_lease(void)
{
    shm_t       *shm;
    uint64_t     a, b, c, other, t1, t2, t3;
    ngx_msec_t   now;

    shm = small();
    a = nth(shm, 1, 5);
    b = nth(shm, 2, 6);
    c = a ^ (uint64_t) 1 << 20;
    now = 123456789;
    t1 = t2 = t3 = 0;

    is(ngx_http_iothub_identity_lease_release(shm, a, 0), NGX_DECLINED,
       "no lease, none to release");
    is(ngx_http_iothub_identity_lease_take(shm, a, now, &t1), NGX_OK,
       "a lease is taken");
    ok(t1 != 0, "its token is not 0");

    other = 42;
    is(ngx_http_iothub_identity_lease_take(shm, a, now, &other), NGX_BUSY,
       "nobody else gets it");
    is(other, 42, "who does not has no token");
    is(ngx_http_iothub_identity_lease_take(shm, c, now, &other), NGX_AGAIN,
       "nor another device that shares it, which is told");
    is(ngx_http_iothub_identity_lease_take(shm, b, now, &t2), NGX_OK,
       "one that does not gets its own");
    ok(t1 >> 24 != t2 >> 24, "owners differ");
    is(ngx_http_iothub_identity_lease_take(shm, a, now - 20000, &other),
       NGX_BUSY, "a worker whose clock is far behind does not steal it");

    is(ngx_http_iothub_identity_lease_release(shm, a, t1), NGX_OK, "released");
    is(ngx_http_iothub_identity_lease_release(shm, a, t1), NGX_DECLINED,
       "not twice");
    is(ngx_http_iothub_identity_lease_take(shm, a, now, &t3), NGX_OK,
       "then another takes it");
    ok(t1 != t3, "in the same moment, with another token");
    is(ngx_http_iothub_identity_lease_release(shm, a, t1), NGX_DECLINED,
       "which the first cannot release");
    other = t1;
    is(ngx_http_iothub_identity_lease_renew(shm, a, &other, now + 1000),
       NGX_DECLINED, "nor renew");
    is(ngx_http_iothub_identity_lease_take(shm, a, now + 5000, &other),
       NGX_BUSY, "a lease lasts five seconds");
    is(ngx_http_iothub_identity_lease_take(shm, a, now + 5200, &t1), NGX_OK,
       "and not much longer");
    is(ngx_http_iothub_identity_lease_renew(shm, a, &t3, now + 5200),
       NGX_DECLINED, "who lost it cannot renew it");
    is(ngx_http_iothub_identity_lease_release(shm, a, t3), NGX_DECLINED,
       "nor release it");

    is(ngx_http_iothub_identity_lease_renew(shm, a, &t1, now + 9000), NGX_OK,
       "the owner renews it");
    is(ngx_http_iothub_identity_lease_take(shm, a, now + 13000, &other),
       NGX_BUSY, "so that it lasts longer");
    is(ngx_http_iothub_identity_lease_renew(shm, a, &t1, now + 60000), NGX_OK,
       "even late, if nobody took it");
    is(ngx_http_iothub_identity_lease_release(shm, a, t1), NGX_OK,
       "the renewed token releases it");

    /* across the wrap of the until part, 2^24 times 64 ms */

    now = ((ngx_msec_t) 5 << 30) - 1000;
    is(ngx_http_iothub_identity_lease_take(shm, a, now, &t1), NGX_OK,
       "a lease across the wrap");
    is(ngx_http_iothub_identity_lease_take(shm, a, now + 4999, &other),
       NGX_BUSY, "lasts");
    is(ngx_http_iothub_identity_lease_take(shm, a, now + 5200, &t2), NGX_OK,
       "and ends");

    shm->leases[a % NGX_HTTP_IOTHUB_IDENTITY_LEASES] = 0xdeadbeefdeadbeefULL;
    is(ngx_http_iothub_identity_lease_take(shm, a, 0x1000, &t2), NGX_OK,
       "a lease that ends in days is none");

    /* a counter of owners that comes round */

    shm->serial = ((uint64_t) 1 << 24) - 1;
    is(ngx_http_iothub_identity_lease_take(shm, b, now + 99999, &t3), NGX_OK,
       "the owners may come round");
    ok(t3 >> 24 != 0, "but no owner is 0");

    is(words(shm), 0, "leases touch no bucket");

    free(shm);
}


static void
test_sweep(void)
{
    shm_t                            *shm;
    uint64_t                          i;
    ngx_http_iothub_identity_stat_t   st;

    shm = small();

    for (i = 0; i < 4; i++) {
        set(shm, nth(shm, i * 60, 1), KNOWN, NOW);
        set(shm, nth(shm, i * 60, 2), SETTLING, NOW);
        set(shm, nth(shm, i * 60, 3), BLOCKED, NOW);
        (void) ngx_http_iothub_identity_ask(shm, nth(shm, i * 60, 4), NOW);
    }

    shm->buckets[255].words[7] = 0xffffffff77ffffffULL;

    ngx_http_iothub_identity_sweep(shm, MILLION, NOW + 1);
    is(words(shm), 16, "what is young stays, what is nothing goes");

    ngx_http_iothub_identity_sweep(shm, 128, NOW + 700);
    ngx_http_iothub_identity_stat(shm, &st);
    is(st.settling, 1, "half of the table swept");
    ngx_http_iothub_identity_sweep(shm, 128, NOW + 700);
    ngx_http_iothub_identity_stat(shm, &st);
    is(st.settling, 0, "settled ones have become known");
    is(st.known, 8, "and are counted so");
    is(st.blocked, 4, "blocked ones stay");
    is(shm->asked, 0, "asks that are over are gone");
    is(words(shm), 12, "in fact");
    is(state(shm, nth(shm, 60, 3), NOW + 700), RECHECK, "to be rechecked");

    free(shm);
}


/* words that no function of this room has written */

static void
test_junk(void)
{
    shm_t       *shm;
    uint64_t     a;
    ngx_uint_t   i, good;

    shm = small();
    a = nth(shm, 0, 0x123456789ULL);
    good = 0;

    for (i = 4; i < 15; i++) {
        memset(shm->buckets, 0, sizeof(shm->buckets[0]));
        shm->buckets[0].words[4] = a << 28 | (uint64_t) i << 24;
        good += state(shm, a, NOW) == UNKNOWN;
    }

    is(good, 11, "a state that is none is unknown");

    for (i = 0; i < 8; i++) {
        shm->buckets[0].words[i] = a << 28 | (uint64_t) 9 << 24;
    }

    set(shm, a, SETTLING, NOW);
    is(state(shm, a, NOW), SETTLING, "junk gives its place");
    ngx_http_iothub_identity_forget(shm, a);
    is(state(shm, a, NOW), UNKNOWN, "and is not in the way of forgetting");
    is(shm->evicted, 0, "replacing it is no eviction");

    free(shm);
}


static ngx_int_t
collect(void *data, const u_char *p, size_t len)
{
    file_t  *f = data;

    if (f->rc != NGX_OK) {
        return f->rc;
    }

    if (f->len + len > sizeof(f->data)) {
        return NGX_ABORT;
    }

    memcpy(f->data + f->len, p, len);
    f->len += len;
    f->pieces++;

    return NGX_OK;
}


static ngx_int_t
export(shm_t *shm, file_t *f, time_t now)
{
    f->len = 0;
    f->pieces = 0;

    return ngx_http_iothub_identity_export(shm, &host, now, collect, f);
}


/* an independent view of the checksum: the hash under a key of zeros */

static void
seal(file_t *f)
{
    shm_t     *zero;
    uint64_t   sum;

    zero = small();
    zero->key[0] = 0;
    zero->key[1] = 0;

    sum = ngx_http_iothub_identity_hash(zero, f->data, f->len - 8);
    memcpy(f->data + f->len - 8, &sum, 8);

    free(zero);
}


static void
test_export(void)
{
    shm_t                            *from, *to;
    file_t                           *f;
    uint64_t                          i;
    ngx_str_t                         long_host;
    ngx_uint_t                        same;
    ngx_http_iothub_identity_stat_t   a, b;

    from = small();
    to = small();
    f = zeroed(sizeof(file_t));

    /* the other table has another key until it takes this one over */
    from->key[0] = 0x1122334455667788ULL;

    is(export(from, f, NOW), NGX_OK, "an empty table is written");
    is(ngx_http_iothub_identity_import(to, f->data, f->len, &host, NOW),
       NGX_OK, "and read");
    is(words(to), 0, "as an empty one");
    ok(to->key[0] == from->key[0], "with its key");

    for (i = 0; i < 1200; i++) {
        set(from, nth(from, (i * 7) % 256, i), 1 + i % 3, NOW);
    }

    (void) ngx_http_iothub_identity_ask(from, nth(from, 0, 0), NOW);
    from->buckets[100].words[7] = 0x12345;

    is(export(from, f, NOW), NGX_OK, "a table is written");
    ok(f->pieces > 2, "in %d pieces of %d bytes", (int) f->pieces,
       (int) f->len);
    is(ngx_http_iothub_identity_import(to, f->data, f->len, &host, NOW + 5),
       NGX_OK, "and read");

    for (same = 0, i = 0; i < 1200; i++) {
        same += state(to, nth(to, (i * 7) % 256, i), NOW + 5) == 1 + i % 3;
    }

    is(same, 1200, "everybody is there");
    is(words(to), 1201, "and nobody else");
    is(ngx_http_iothub_identity_ask(to, nth(to, 0, 0), NOW + 5),
       NGX_DECLINED, "what was asked is known");

    ngx_http_iothub_identity_stat(from, &a);
    ngx_http_iothub_identity_stat(to, &b);
    ok(a.known == b.known && a.settling == b.settling
       && a.blocked == b.blocked, "all are counted");

    /* the same moved on */

    free(to);
    to = small();
    is(ngx_http_iothub_identity_import(to, f->data, f->len, &host, NOW + 610),
       NGX_OK, "read ten minutes later");
    is(state(to, nth(to, 0, 0), NOW + 610), KNOWN, "known is known");
    is(state(to, nth(to, 7, 1), NOW + 610), KNOWN, "who settled is known");
    is(state(to, nth(to, 14, 2), NOW + 610), RECHECK, "blocked is over");
    is(ngx_http_iothub_identity_ask(to, nth(to, 0, 0), NOW + 610), NGX_OK,
       "asks are over");

    free(to);
    to = small();
    is(ngx_http_iothub_identity_import(to, f->data, f->len, &host,
                                       NOW + 10 + WRAP),
       NGX_OK, "read 194 days later");
    is(state(to, nth(to, 14, 2), NOW + 10 + WRAP), RECHECK,
       "blocked is not young again");

    free(to);
    to = small();
    is(ngx_http_iothub_identity_import(to, f->data, f->len, &host,
                                       NOW - 86400),
       NGX_OK, "read the day before, by a clock set back");
    is(state(to, nth(to, 14, 2), NOW - 86400), BLOCKED,
       "blocked begins there");
    is(state(to, nth(to, 14, 2), NOW - 86400 + 600), RECHECK, "and ends");

    f->rc = NGX_BUSY;
    is(export(from, f, NOW), NGX_BUSY, "the callback can stop it");
    f->rc = NGX_OK;

    long_host.len = 1024;
    long_host.data = f->data;
    is(ngx_http_iothub_identity_export(from, &long_host, NOW, collect, f),
       NGX_ERROR, "a host name has an end");

    free(from);
    free(to);
    free(f);
}


static void
test_damage(void)
{
    shm_t      *from, *to, *big;
    size_t      i, end;
    file_t     *f, *g;
    u_char      byte, *exact;
    uint64_t    word;
    ngx_str_t   other = ngx_string("fabrikam.azure-devices.net");
    ngx_uint_t  bit, taken;

    static struct {
        size_t       at;
        uint64_t     word;
        const char  *name;
    } made[] = {
        { 6,  1024,                  "a host too long" },
        { 6,  ~(uint64_t) 0,         "a host longer than any" },
        { 188, 256 << 8 | 3,         "a bucket outside of the table" },
        { 188, (uint64_t) 1 << 63 | 3, "a bucket far outside" },
        { 11, 18 << 8 | 3,           "a bucket twice" },
        { 11, 14 << 8 | 7,           "a bucket that goes on too long" },
        { 11, ~(uint64_t) 0,         "an end before the end" },
        { 12, 0,                     "a free word" },
        { 12, (uint64_t) 4 << 24,    "a state that is none" },
        { 188, 250 << 8 | 7,         "a word past the end" },
        { 188, 250 << 8 | 255,       "many words past the end" },
        { 191, 0,                    "no end" }
    };

    from = small();
    to = small();
    big = table(ngx_http_iothub_identity_min_size() + 64);
    f = zeroed(sizeof(file_t));
    g = zeroed(sizeof(file_t));

    from->key[0] = 0x1122334455667788ULL;

    for (i = 0; i < 60; i++) {
        set(from, nth(from, 250 - i * 4, i), KNOWN, NOW);
        set(from, nth(from, 250 - i * 4, i + 100), BLOCKED, NOW);
    }

    (void) export(from, f, NOW);
    end = f->len;

    for (taken = 0, i = 0; i < end; i++) {
        /* in memory of exactly that size, for the address sanitizer */
        exact = malloc(i ? i : 1);
        memcpy(exact, f->data, i);
        taken += ngx_http_iothub_identity_import(to, exact, i, &host, NOW)
                 != NGX_ERROR;
        free(exact);
    }

    is(end, 193 * 8, "an export of 60 buckets with two devices each");
    is(taken, 0, "cut short at any of %d bytes: damaged", (int) end);

    for (taken = 0, i = 0; i < end; i++) {
        byte = f->data[i];

        for (bit = 0; bit < 8; bit++) {
            f->data[i] = byte ^ (1 << bit);
            taken += ngx_http_iothub_identity_import(to, f->data, end, &host,
                                                     NOW)
                     != NGX_ERROR;
        }

        f->data[i] = byte;
    }

    is(taken, 0, "any one bit flipped: damaged");
    is(ngx_http_iothub_identity_import(to, f->data, end + 8, &host, NOW),
       NGX_ERROR, "longer: damaged");
    is(ngx_http_iothub_identity_import(to, f->data, end + 3, &host, NOW),
       NGX_ERROR, "a little longer: damaged");
    is(words(to), 0, "nothing of it is in the table");
    ok(to->key[0] != from->key[0], "not even its key");

    is(ngx_http_iothub_identity_import(to, f->data, end, &other, NOW),
       NGX_DECLINED, "another host");
    is(ngx_http_iothub_identity_import(big, f->data, end, &host, NOW),
       NGX_DECLINED, "another size");
    is(words(to) + words(big), 0, "both leave the table empty");

    /* what the checksum cannot see: a file that was made so */

    memcpy(g, f, sizeof(file_t));
    seal(g);
    ok(memcmp(g->data, f->data, end) == 0,
       "the checksum is SipHash-2-4 under a key of zeros");

    g->data[8]++;
    seal(g);
    is(ngx_http_iothub_identity_import(to, g->data, end, &host, NOW),
       NGX_DECLINED, "another version");

    for (i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
        memcpy(g->data, f->data, end);
        memcpy(g->data + made[i].at * 8, &made[i].word, 8);
        seal(g);
        is(ngx_http_iothub_identity_import(to, g->data, end, &host, NOW),
           NGX_ERROR, "%s: damaged", made[i].name);
    }

    memcpy(g->data, f->data, end);
    word = 13 << 8;
    memcpy(g->data + 11 * 8, &word, 8);
    word = 14 << 8 | 1;
    memcpy(g->data + 12 * 8, &word, 8);
    seal(g);
    is(ngx_http_iothub_identity_import(to, g->data, end, &host, NOW),
       NGX_ERROR, "a bucket without words: damaged");

    memcpy(g->data, f->data, 7 * 8);
    memset(g->data + 7 * 8, 0xff, 8);
    g->len = 9 * 8;
    seal(g);
    exact = malloc(g->len);
    memcpy(exact, g->data, g->len);
    is(ngx_http_iothub_identity_import(to, exact, g->len, &host, NOW),
       NGX_ERROR, "no room for the host: damaged");
    free(exact);

    is(words(to), 0, "the table is empty");

    memcpy(&word, f->data + 11 * 8, 8);
    is(word, 14 << 8 | 3, "they were made where they were meant to be");

    is(ngx_http_iothub_identity_import(to, f->data, end, &host, NOW),
       NGX_OK, "the file itself is still read");
    is(words(to), 120, "whole");

    free(from);
    free(to);
    free(big);
    free(f);
    free(g);
}


static uint64_t
device(shm_t *shm, ngx_uint_t n)
{
    char  id[32];
    int   len;

    len = snprintf(id, sizeof(id), "%024lx", (u_long) (n * 2654435761UL));

    return ngx_http_iothub_identity_hash(shm, (u_char *) id, len);
}


/* 16 MB of a zone, of which nginx's slab allocator keeps some 100 KB */

static void
test_million(void)
{
    shm_t                            *shm;
    ngx_uint_t                        i, missed, wrong;
    ngx_http_iothub_identity_stat_t   st;

    shm = table(16 * 1024 * 1024 - 128 * 1024);

    for (i = 0; i < MILLION; i++) {
        set(shm, device(shm, i), KNOWN, NOW + i / 1000);
    }

    missed = 0;
    wrong = 0;

    for (i = 0; i < MILLION; i++) {
        missed += state(shm, device(shm, i), NOW + 1000) != KNOWN;
        wrong += state(shm, device(shm, MILLION + i), NOW + 1000) != UNKNOWN;
    }

    ngx_http_iothub_identity_stat(shm, &st);

    ok(missed <= MILLION / 100,
       "a million identities in 16 MB: %.3f %% missed",
       missed * 100. / MILLION);
    is(missed, st.evicted, "as many as were evicted");
    is(st.known, MILLION - missed, "the others are counted");
    is(wrong, 0, "a million others are not found");

    free(shm);
}


static double
seconds(clockid_t id)
{
    struct timespec  ts;

    clock_gettime(id, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


/* so many lookups before, the memory of one is asked for */

#define AHEAD  8

static shm_t       *bench_shm;
static ngx_uint_t   bench_ahead;


/* the nth device's hash, without memory that would be timed with the table */

static uint64_t
mixed(uint64_t n)
{
    n = (n + 1) * 0x9e3779b97f4a7c15ULL;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9ULL;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebULL;

    return n ^ (n >> 31);
}


/* one of a million devices, at random: the same ones for the same seed */

static uint64_t
any_device(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;

    return mixed((*seed >> 33) % MILLION);
}


/*
 * Every hundredth call sets, of which most write nothing, as in production.
 * A webhook asks for the memory some time before it looks: here, while others
 * are looked up.
 */

static void *
bench_thread(void *data)
{
    double      *ns = data;
    uint64_t     x, ahead;
    ngx_uint_t   i, n, found;

    n = 5 * MILLION;
    x = (uintptr_t) data;
    ahead = x;
    found = 0;

    for (i = 0; i < AHEAD; i++) {
        (void) any_device(&ahead);
    }

    *ns = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (i = 0; i < n; i++) {

        if (bench_ahead) {
            ngx_http_iothub_identity_prefetch(bench_shm, any_device(&ahead));
        }

        if (i % 100 == 0) {
            set(bench_shm, any_device(&x), i % 1000 == 0 ? SETTLING : KNOWN,
                NOW);
            continue;
        }

        found += state(bench_shm, any_device(&x), NOW);
    }

    *ns = (seconds(CLOCK_THREAD_CPUTIME_ID) - *ns) * 1e9 / n;

    return found ? data : NULL;
}


static int
bench(void)
{
    double            start, ns[8], sum;
    uint64_t          h;
    pthread_t         threads[8];
    ngx_uint_t        i, round, n, found;
    static u_char     id[] = "2a0038000447373336323230";

    bench_shm = table(16 * 1024 * 1024 - 128 * 1024);

    for (i = 0; i < MILLION; i++) {
        set(bench_shm, mixed(i), KNOWN, NOW);
    }

    n = 10 * MILLION;
    found = 0;

    start = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (h = 0, i = 0; i < n; i++) {
        id[i % 24] = '0' + i % 10;
        h ^= ngx_http_iothub_identity_hash(bench_shm, id, 24);
    }
    printf("hash of 24 bytes:         %6.1f ns\n",
           (seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e9 / n);
    found += h & 1;

    for (round = 1000; round <= MILLION; round *= 10) {
        start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (i = 0; i < n; i++) {
            found += state(bench_shm, mixed((i * 7919) % round), NOW);
        }
        printf("lookup, %7d devices:  %6.1f ns\n", (int) round,
               (seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e9 / n);
    }

    for (bench_ahead = 0; bench_ahead < 2; bench_ahead++) {

        for (i = 0; i < 8; i++) {
            pthread_create(&threads[i], NULL, bench_thread, &ns[i]);
        }

        for (sum = 0, i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
            sum += ns[i];
        }

        printf("a million, 8 threads, 1%% set%s %6.1f ns of CPU\n",
               bench_ahead ? ", asked for ahead:" : ":                 ",
               sum / 8);
    }

    return found == 0;
}


int
main(int argc, char *argv[])
{
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        return bench();
    }

    test_init();
    test_hash();
    test_states();
    test_known_again();
    test_wrap();
    test_eviction();
    test_forget();
    test_ask();
    test_lease();
    test_sweep();
    test_junk();
    test_export();
    test_damage();
    test_million();

    return done_testing();
}
