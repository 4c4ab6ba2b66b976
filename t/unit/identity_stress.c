/* build: tsan */
/* sources: src/ngx_http_iothub_gate.c src/ngx_http_iothub_siphash.c */

/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Eight threads on one identity table, one token bucket and one gate, under
 * ThreadSanitizer: threads stand for workers.
 */

#include "tap.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "ngx_http_iothub_gate.h"


/*
 * The rooms are compiled in here, so that a thread can lose its turn before
 * any of its steps: on a few cores the narrow races would hardly ever be met.
 */

static __thread unsigned  steps;


static void
step(void)
{
    steps = steps * 1103515245 + 12345;

    if ((steps >> 16) % 64 == 0) {
        sched_yield();
    }
}


#define __atomic_load_n(p, order)                                             \
    (step(), __atomic_load_n(p, order))

#define __atomic_compare_exchange_n(p, old, value, weak, order, failed)       \
    (step(), __atomic_compare_exchange_n(p, old, value, weak, order, failed))

#include "ngx_http_iothub_identity.c"
#include "ngx_http_iothub_identity_file.c"
#include "ngx_http_iothub_identity_lease.c"

#undef __atomic_load_n
#undef __atomic_compare_exchange_n


#define UNKNOWN   NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN
#define KNOWN     NGX_HTTP_IOTHUB_IDENTITY_KNOWN
#define SETTLING  NGX_HTTP_IOTHUB_IDENTITY_SETTLING
#define RECHECK   NGX_HTTP_IOTHUB_IDENTITY_RECHECK

#define THREADS   8
#define NOW       1700000000
#define NOW_MS    ((ngx_msec_t) 5000000)

#define DEVICES   40000
#define ASKED     4000
#define MIXED     150000          /* operations a thread */
#define ROUNDS    20
#define LEASES    4000            /* leases a thread and round */
#define CALLS     100000          /* of the token bucket, a thread */
#define PROBES    2000
#define TWINS     20000

#define add(p, n)   __atomic_add_fetch(p, n, __ATOMIC_RELAXED)
#define get(p)      __atomic_load_n(p, __ATOMIC_RELAXED)


typedef ngx_http_iothub_identity_shm_t  shm_t;


typedef struct {
    uint64_t     random;
    ngx_uint_t   n;

    /* leases that were left behind, as by a worker that died */
    uint64_t     stale_hash[LEASES];
    uint64_t     stale_token[LEASES];
    ngx_uint_t   stale;
} thread_t;


static u_char  key[16] = "0123456789abcdef";

static thread_t           threads[THREADS];
static pthread_barrier_t  barrier;

static shm_t     *shm;

static uint64_t   operations;
static uint64_t   violations;
static uint64_t   holders[NGX_HTTP_IOTHUB_IDENTITY_LEASES];
static uint64_t   created[DEVICES];
static uint64_t   asked[ASKED];
static uint64_t   contended;
static uint64_t   stolen;
static uint64_t   expired;
static uint64_t   allowed;

static uint64_t                     clock_ms;
static uint64_t                     granted;
static ngx_http_iothub_gate_rate_t  bucket;

static uint64_t                     probes;
static uint64_t                     early;
static ngx_http_iothub_gate_t       gate;


static uint64_t
next(thread_t *t)
{
    t->random = t->random * 6364136223846793005ULL + 1442695040888963407ULL;

    return t->random >> 33;
}


static void
run(void *(*function)(void *))
{
    pthread_t   id[THREADS];
    ngx_uint_t  i;

    for (i = 0; i < THREADS; i++) {
        threads[i].n = i;
        threads[i].stale = 0;
        threads[i].random = i + 1;

        if (pthread_create(&id[i], NULL, function, &threads[i]) != 0) {
            abort();
        }
    }

    for (i = 0; i < THREADS; i++) {
        pthread_join(id[i], NULL);
    }
}


static void
table(ngx_uint_t nbuckets)
{
    void    *p;
    size_t   size;

    free(shm);

    size = ngx_http_iothub_identity_min_size() + nbuckets * 64;

    if (posix_memalign(&p, 4096, size) != 0) {
        abort();
    }

    memset(p, 0, size);

    if (ngx_http_iothub_identity_init(p, size, key) != NGX_OK) {
        abort();
    }

    shm = p;
}


static uint64_t
hash(uint64_t n)
{
    return ngx_http_iothub_identity_hash(shm, (u_char *) &n, sizeof(n));
}


/* a lease must have one holder: this is called by whoever believes to be */

static void
hold(uint64_t h, int n)
{
    uint64_t  now;

    now = __atomic_add_fetch(&holders[h % NGX_HTTP_IOTHUB_IDENTITY_LEASES], n,
                             __ATOMIC_SEQ_CST);

    if (now != (n > 0)) {
        add(&violations, 1);
    }
}


/* whether the words of the table are what its counters say, each one once */

static ngx_uint_t
consistent(void)
{
    uint64_t     i, a, b, word, *w;
    uint64_t     states[16];

    memset(states, 0, sizeof(states));

    for (i = 0; i < shm->nbuckets; i++) {
        w = shm->buckets[i].words;

        for (a = 0; a < NGX_HTTP_IOTHUB_IDENTITY_WORDS; a++) {
            word = w[a] >> 24;

            if (word == 0) {
                continue;
            }

            states[word & 15]++;

            for (b = 0; b < a; b++) {
                if (w[b] >> 28 == word >> 4
                    && ((w[b] >> 24 & 15) == 15) == ((word & 15) == 15))
                {
                    note("a device is there twice");
                    return 0;
                }
            }
        }
    }

    note("known %lu of %lu, settling %lu of %lu, blocked %lu of %lu, "
         "asked %lu of %lu",
         (u_long) shm->known, (u_long) states[1],
         (u_long) shm->settling, (u_long) states[2],
         (u_long) shm->blocked, (u_long) states[3],
         (u_long) shm->asked, (u_long) states[15]);

    return shm->known == states[1] && shm->settling == states[2]
           && shm->blocked == states[3] && shm->asked == states[15];
}


/* a delivery: returns 0 if it has to come back */

static ngx_uint_t
deliver(thread_t *t, uint64_t id)
{
    uint64_t    h, token;
    ngx_uint_t  state;

    h = hash(id);
    state = ngx_http_iothub_identity_lookup(shm, h, NOW, NULL);
    add(&operations, 1);

    if (state == SETTLING) {
        ngx_http_iothub_identity_set(shm, h, KNOWN, NOW);
    }

    if (state != UNKNOWN) {
        return 1;
    }

    if (ngx_http_iothub_identity_lease_take(shm, h, NOW_MS, &token)
        != NGX_OK)
    {
        add(&contended, 1);
        sched_yield();
        return 0;
    }

    hold(h, 1);

    if (ngx_http_iothub_identity_lookup(shm, h, NOW, NULL) == UNKNOWN) {

        if (next(t) % 8 == 0) {
            sched_yield();
        }

        add(&created[id], 1);
        ngx_http_iothub_identity_set(shm, h, SETTLING, NOW);
    }

    if (ngx_http_iothub_identity_lease_renew(shm, h, &token, NOW_MS + 1000)
        != NGX_OK)
    {
        add(&violations, 1);
    }

    hold(h, -1);

    if (ngx_http_iothub_identity_lease_release(shm, h, token) != NGX_OK) {
        add(&violations, 1);
    }

    return 1;
}


/* all threads walk the same way, so that they meet at every device */

static void *
creations(void *data)
{
    thread_t  *t = data;
    uint64_t   i;

    for (i = 0; i < DEVICES; i++) {

        while (!deliver(t, i)) { /* void */ }

        if (i % (DEVICES / ASKED) == 0
            && ngx_http_iothub_identity_ask(shm, hash(i), NOW) == NGX_OK)
        {
            add(&asked[i / (DEVICES / ASKED)], 1);
        }

        (void) deliver(t, next(t) % (i + 1));
    }

    return NULL;
}


static void
test_creations(void)
{
    ngx_uint_t  i, once;

    table(65536);
    run(creations);

    for (once = 0, i = 0; i < DEVICES; i++) {
        once += created[i] == 1;
    }

    note("%lu times a lease was held by another", (u_long) contended);
    is(once, DEVICES, "each device was created once");
    is(shm->evicted, 0, "none was evicted");

    for (once = 0, i = 0; i < ASKED; i++) {
        once += asked[i] == 1;
    }

    is(once, ASKED, "each device was asked about once");
    is(violations, 0, "no lease had two holders or was lost");
    is(shm->known + shm->settling, DEVICES, "all are counted");
    ok(consistent(), "the table is consistent");
}


static ngx_int_t
discard(void *data, const u_char *p, size_t len)
{
    uint64_t  *sum = data;

    *sum += p[0] + len;

    return NGX_OK;
}


/* everything at once, on few buckets: 2,048 words for 4,000 devices */

static void *
mixture(void *data)
{
    thread_t    *t = data;
    time_t       now;
    uint64_t     i, h, sum;
    ngx_str_t    host = ngx_string("contoso");
    ngx_uint_t   state;

    sum = 0;

    for (i = 0; i < MIXED; i++) {
        h = hash(next(t) % 4000);
        now = NOW + i / 100 + next(t) % 3;

        switch (next(t) % 16) {

        case 0:
        case 1:
        case 2:
        case 3:
            ngx_http_iothub_identity_set(shm, h, KNOWN + next(t) % 3, now);
            break;

        case 4:
            ngx_http_iothub_identity_forget(shm, h);
            break;

        case 5:
            (void) ngx_http_iothub_identity_forget_if(shm, h, KNOWN, now);
            break;

        case 6:
            (void) ngx_http_iothub_identity_ask(shm, h, now);
            break;

        case 7:
            ngx_http_iothub_identity_unask(shm, h);
            break;

        case 8:
            ngx_http_iothub_identity_sweep(shm, 4, now);
            break;

        default:
            state = ngx_http_iothub_identity_lookup(shm, h, now, NULL);

            if (state > RECHECK) {
                add(&violations, 1);
            }
        }

        if (i % (MIXED / 8) == t->n) {
            (void) ngx_http_iothub_identity_export(shm, &host, now, discard,
                                                   &sum);
        }
    }

    add(&operations, MIXED);

    return NULL;
}


static void
test_mixture(void)
{
    table(0);
    violations = 0;
    run(mixture);

    ok(shm->evicted > 1000, "%lu evictions", (u_long) shm->evicted);
    is(violations, 0, "every lookup reports a state");
    ok(consistent(), "the table is consistent");
}


/* each round is ten seconds later; what was left behind is then free */

static void *
leases(void *data)
{
    thread_t    *t = data;
    uint64_t     h, token, old_hash, old_token;
    ngx_msec_t   now;
    ngx_uint_t   i, round;

    old_hash = 0;
    old_token = 0;

    for (round = 0; round < ROUNDS; round++) {
        now = NOW_MS + round * 10000;

        for (i = 0; i < LEASES; i++) {
            h = hash(next(t) % 64);
            token = 0;

            if (i < t->stale) {

                /* whoever took the lease since must not notice this */

                if (ngx_http_iothub_identity_lease_release(shm,
                                      t->stale_hash[i], t->stale_token[i])
                    == NGX_OK)
                {
                    add(&expired, 1);

                } else {
                    add(&stolen, 1);
                }
            }

            if (ngx_http_iothub_identity_lease_take(shm, h, now, &token)
                != NGX_OK)
            {
                continue;
            }

            hold(h, 1);

            if (next(t) % 4 == 0) {
                sched_yield();
            }

            if (ngx_http_iothub_identity_lease_renew(shm, h, &token, now)
                != NGX_OK)
            {
                add(&violations, 1);
            }

            hold(h, -1);

            if (ngx_http_iothub_identity_lease_release(shm, h, token)
                != NGX_OK)
            {
                add(&violations, 1);
            }

            /* released twice, while another may have it in the same tick */

            if (ngx_http_iothub_identity_lease_release(shm, old_hash,
                                                       old_token)
                == NGX_OK)
            {
                add(&violations, 1);
            }

            old_hash = h;
            old_token = token;
        }

        add(&operations, LEASES);
        pthread_barrier_wait(&barrier);

        /* at the end of a round, a few die with a lease */

        for (t->stale = 0, i = 0; i < 8; i++) {
            h = hash(next(t) % 64);

            if (ngx_http_iothub_identity_lease_take(shm, h, now,
                                              &t->stale_token[t->stale])
                == NGX_OK)
            {
                t->stale_hash[t->stale++] = h;
            }
        }

        pthread_barrier_wait(&barrier);
    }

    return NULL;
}


static void
test_leases(void)
{
    table(0);
    violations = 0;
    memset(holders, 0, sizeof(holders));
    run(leases);

    is(violations, 0, "no lease had two holders or was lost to a stale one");
    ok(stolen > 100, "%lu stale owners found their lease taken, %lu not",
       (u_long) stolen, (u_long) expired);
}


/*
 * Half of the threads bring the same new device into one bucket and ask about
 * it, while the others free and fill the words around it.
 */

static void *
twins(void *data)
{
    thread_t    *t = data;
    uint64_t     h, seen[NGX_HTTP_IOTHUB_IDENTITY_WORDS];
    ngx_uint_t   i, n, round;

    for (round = 0; round < TWINS; round++) {
        h = round + 100;

        pthread_barrier_wait(&barrier);

        if (t->n % 2) {
            for (i = next(t) % 8; i < 12; i++) {
                ngx_http_iothub_identity_forget(shm, 1 + next(t) % 4);
                ngx_http_iothub_identity_set(shm, 1 + next(t) % 4, SETTLING,
                                             NOW);
            }

        } else {
            for (i = next(t) % 8; i; i--) {
                (void) ngx_http_iothub_identity_lookup(shm, 1, NOW, NULL);
            }

            if (round % 2) {
                ngx_http_iothub_identity_set(shm, h, KNOWN, NOW);

            } else if (ngx_http_iothub_identity_ask(shm, h, NOW) == NGX_OK) {
                add(&allowed, 1);
            }
        }

        pthread_barrier_wait(&barrier);

        if (t->n) {
            continue;
        }

        memcpy(seen, shm->buckets[0].words, sizeof(seen));

        for (n = 0, i = 0; i < NGX_HTTP_IOTHUB_IDENTITY_WORDS; i++) {
            n += seen[i] >> 28 == h;
        }

        if (n != 1 || (round % 2 == 0 && allowed != round / 2 + 1)) {
            add(&violations, 1);
            allowed = round / 2 + 1;
        }

        ngx_http_iothub_identity_forget(shm, h);
        ngx_http_iothub_identity_unask(shm, h);
    }

    add(&operations, TWINS * 8);

    return NULL;
}


static void
test_twins(void)
{
    table(0);
    violations = 0;
    run(twins);

    is(violations, 0, "set by four at once, a device is there once");
    is(allowed, TWINS / 2, "asked about by four at once, one may ask");
    is(shm->evicted, 0, "none was evicted");
}


static void *
turns(void *data)
{
    thread_t    *t = data;
    ngx_uint_t   i;
    ngx_msec_t   now, wait;

    for (i = 0; i < CALLS; i++) {
        now = get(&clock_ms);

        if (next(t) % 64 == 0) {
            now = add(&clock_ms, 1);
        }

        if (ngx_http_iothub_gate_rate_book(&bucket, 1500000, 20, now, 0, &wait)
            == NGX_OK)
        {
            add(&granted, 1);
        }
    }

    add(&operations, CALLS);

    return NULL;
}


static void
test_turns(void)
{
    uint64_t  passed, limit;

    clock_ms = NOW_MS;
    run(turns);

    passed = clock_ms - NOW_MS;
    limit = passed * 3 / 2 + 20;

    ok(granted <= limit, "%lu turns in %lu ms at 1500/s, burst 20: at most "
       "%lu", (u_long) granted, (u_long) passed, (u_long) limit);
    ok(granted >= limit - 25, "and hardly fewer");
}


static void *
probing(void *data)
{
    thread_t    *t = data;
    uint64_t     probe;
    ngx_uint_t   round, i;
    ngx_msec_t   now, until;
    ngx_uint_t   reason;

    for (round = 0; round < PROBES; round++) {
        now = NOW_MS + round * 10000;

        pthread_barrier_wait(&barrier);

        /* all fail, and the longest wait counts */

        ngx_http_iothub_gate_close(&gate, now, now + 1000 + t->n, 1);

        pthread_barrier_wait(&barrier);

        if (ngx_http_iothub_gate_check(&gate, now + 1000 + THREADS - 2,
                                       &until, &reason, &probe)
            != NGX_HTTP_IOTHUB_GATE_CLOSED
            || until != now + 1000 + THREADS - 1)
        {
            add(&early, 1);
        }

        pthread_barrier_wait(&barrier);

        for (i = 0; i < 4; i++) {
            if (ngx_http_iothub_gate_check(&gate, now + 2000, &until, &reason,
                                           &probe)
                == NGX_HTTP_IOTHUB_GATE_PROBE)
            {
                add(&probes, 1);
                break;
            }
        }

        pthread_barrier_wait(&barrier);

        if (i < 4 && ngx_http_iothub_gate_open(&gate, probe) != NGX_OK) {
            add(&violations, 1);
        }

        pthread_barrier_wait(&barrier);

        if (ngx_http_iothub_gate_check(&gate, now + 2000, &until, &reason,
                                       &probe)
            != NGX_HTTP_IOTHUB_GATE_OPEN)
        {
            add(&violations, 1);
        }
    }

    add(&operations, PROBES * 6);

    return NULL;
}


static void
test_probes(void)
{
    violations = 0;
    run(probing);

    is(early, 0, "the longest of eight closings at once counts");
    is(probes, PROBES, "of eight that wait, one probes");
    is(violations, 0, "and opens for all");
}


int
main(void)
{
    /* a lost update can make two threads wait for each other */
    alarm(240);

    pthread_barrier_init(&barrier, NULL, THREADS);

    test_creations();
    test_mixture();
    test_leases();
    test_twins();
    test_turns();
    test_probes();

    ok(operations >= 2000000, "%lu operations", (u_long) operations);

    return done_testing();
}
