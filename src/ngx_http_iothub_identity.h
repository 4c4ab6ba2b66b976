
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * identity: what this gateway knows of the devices of one hub, in one fixed
 * table of shared memory.  It is read for every webhook, so a lookup takes no
 * lock and touches one cache line.
 *
 * A bucket is one cache line of eight 64-bit words.  A word is
 *
 *     tag 36 | state 4 | time 24        0 is a free word
 *
 * where tag is the low part of the device's keyed hash, and time is when the
 * state was set, in seconds modulo 2^24 (194 days).  The bucket comes from
 * the hash's upper half.  Every change is one compare-and-swap of one word.
 * Where a bucket is full, its oldest word is evicted: the table forgets, it
 * never fails.
 *
 * Times of the table, called "now", are seconds of the wall clock
 * (ngx_time()), because they outlive a restart in the state file.  A clock
 * that jumps makes states end early, or last a minute longer.
 *
 * The leases lie in the same memory, see identity_lease; what becomes a file
 * of the table, see identity_file.
 *
 * This room is pure: bytes, numbers and __atomic builtins.  It allocates
 * nothing, logs nothing and reads no clock.
 */


#ifndef _NGX_HTTP_IOTHUB_IDENTITY_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_IDENTITY_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#if (NGX_PTR_SIZE != 8)
#error ngx_http_iothub_module needs a 64-bit platform
#endif


/* what lookup() reports; the first four are also what set() takes */

#define NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN      0
#define NGX_HTTP_IOTHUB_IDENTITY_KNOWN        1
#define NGX_HTTP_IOTHUB_IDENTITY_SETTLING     2
#define NGX_HTTP_IOTHUB_IDENTITY_BLOCKED      3
#define NGX_HTTP_IOTHUB_IDENTITY_RECHECK      4   /* was blocked: send */

/* how long a state is what it says, seconds */

#define NGX_HTTP_IOTHUB_IDENTITY_SETTLE_TIME  15
#define NGX_HTTP_IOTHUB_IDENTITY_BLOCK_TIME   600
#define NGX_HTTP_IOTHUB_IDENTITY_ASK_TIME     600
#define NGX_HTTP_IOTHUB_IDENTITY_ASK_PENDING  120

/* of the layout, in memory and in a file */

#define NGX_HTTP_IOTHUB_IDENTITY_VERSION      1

#define NGX_HTTP_IOTHUB_IDENTITY_LEASES       4096
#define NGX_HTTP_IOTHUB_IDENTITY_WORDS        8


typedef struct {
    uint64_t   words[NGX_HTTP_IOTHUB_IDENTITY_WORDS];
} ngx_http_iothub_identity_bucket_t;


/*
 * The shared layout.  Each part fills whole cache lines, so that counting
 * does not slow down those who only read.
 */

typedef struct {
    /* constant once the table is in use */
    uint64_t   magic;
    uint64_t   version;
    uint64_t   size;
    uint64_t   nbuckets;
    uint64_t   key[2];
    uint64_t   reserved[2];

    /* changed by relaxed atomics only; read them by stat() */
    uint64_t   known;
    uint64_t   settling;
    uint64_t   blocked;
    uint64_t   asked;
    uint64_t   evicted;
    uint64_t   serial;                 /* of lease owners */
    uint64_t   cursor;                 /* of sweep() */
    uint64_t   unused;

    uint64_t   leases[NGX_HTTP_IOTHUB_IDENTITY_LEASES];

    ngx_http_iothub_identity_bucket_t  buckets[1];
} ngx_http_iothub_identity_shm_t;


typedef struct {
    uint64_t   capacity;               /* words in the table */
    uint64_t   known;
    uint64_t   settling;
    uint64_t   blocked;
    uint64_t   evicted;                /* since the table was made */
} ngx_http_iothub_identity_stat_t;


/*
 * The bytes that the smallest table needs (leases and 2,048 identities).
 * Each further 64 bytes hold eight identities more; with half of the words
 * in use, under 1 % of the identities find their bucket full.
 */
size_t ngx_http_iothub_identity_min_size(void);

/*
 * Makes an empty table of mem, which must be zeroed and aligned to 64 bytes
 * (a page of the slab allocator is), and uses all of size.  key is random,
 * from the caller; it keeps senders from choosing ids that share a bucket.
 * Called before anyone else sees mem.  Returns NGX_ERROR if size is too small
 * or mem is not aligned.
 */
ngx_int_t ngx_http_iothub_identity_init(void *mem, size_t size,
    const u_char key[16]);

/*
 * Returns NGX_OK if mem holds a table of this version that was made with
 * exactly this size, else NGX_DECLINED.  For memory kept over a reload.
 */
ngx_int_t ngx_http_iothub_identity_check(void *mem, size_t size);

/*
 * The device's hash: 64-bit SipHash-2-4 of the id under the table's key.
 * Compute it once per delivery.  It changes with an import.
 */
uint64_t ngx_http_iothub_identity_hash(
    const ngx_http_iothub_identity_shm_t *shm, const u_char *id, size_t len);

/*
 * Brings what a lookup will read into this core's cache, where it is not for
 * most devices of many: to be called some time before.
 */
void ngx_http_iothub_identity_prefetch(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash);

/*
 * What is known of a device.  *age, if age is not NULL, becomes the seconds
 * since the state was set (0 if UNKNOWN).
 *
 *   KNOWN     the hub has it; also what SETTLING becomes after SETTLE_TIME
 *   SETTLING  the hub said that it was created, a 404 may still come
 *   BLOCKED   disabled in the hub
 *   RECHECK   was BLOCKED for BLOCK_TIME: try a send, never a creation
 */
ngx_uint_t ngx_http_iothub_identity_lookup(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now, time_t *age);

/*
 * Sets a device's state to KNOWN, SETTLING or BLOCKED, as of now; UNKNOWN
 * forgets it.  Setting KNOWN what has been KNOWN for less than ten minutes
 * writes nothing, so that it may be called after every send.  Never fails:
 * a full bucket gives up its oldest word.
 */
void ngx_http_iothub_identity_set(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, ngx_uint_t state, time_t now);

/*
 * Forgets a device, whatever its state.  When it was asked about is kept.
 */
void ngx_http_iothub_identity_forget(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash);

/*
 * Forgets a device if it is still in the given state (as lookup() at
 * "started" would have reported it) and was set before "started", so that the
 * late 404 of an old send cannot undo what a creation has found out since.
 * Workers read their clocks at different moments: what was set within the
 * second before "started" counts as later.  Returns NGX_OK if the table now
 * knows nothing of the device, NGX_DECLINED if something stands: look it up.
 */
ngx_int_t ngx_http_iothub_identity_forget_if(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash, ngx_uint_t state,
    time_t started);

/*
 * May the hub be asked (GET) about this device now?  NGX_OK: yes, and nobody
 * else will be told so for ASK_PENDING, longer than a question runs, so that
 * a worker that dies with one holds nobody back for longer; NGX_DECLINED: it
 * has been asked about.  Kept apart from the device's state, in a word of the
 * same bucket.
 */
ngx_int_t ngx_http_iothub_identity_ask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now);

/*
 * The question was answered: none may be put for ASK_TIME from now.
 */
void ngx_http_iothub_identity_asked(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now);

/*
 * Takes an ask back: the question got no answer, the next may ask again.
 */
void ngx_http_iothub_identity_unask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash);

/*
 * Tidies the next n buckets; it goes on where the last call, by any worker,
 * stopped.  It makes SETTLING that is over KNOWN, drops asks that are over,
 * and holds what is older than 97 days at that age, so that a time of 24 bits
 * never comes round and looks young again.  A call a minute with n = 4096
 * goes round a table of 16 MB in an hour and one of 16 GB in 45 days.
 */
void ngx_http_iothub_identity_sweep(ngx_http_iothub_identity_shm_t *shm,
    ngx_uint_t n, time_t now);

/*
 * Counters, each true by itself.
 */
void ngx_http_iothub_identity_stat(ngx_http_iothub_identity_shm_t *shm,
    ngx_http_iothub_identity_stat_t *stat);

/*
 * For identity_file, which sees words.  is_used(): is it a device's state, or
 * an ask?  moved(): the word at now of one that was at "then" as given; 0 if
 * it is over.  swap(): changes a word of a bucket if it still is what it was,
 * and counts; 1 if it did.
 */
ngx_uint_t ngx_http_iothub_identity_is_used(uint64_t word);
uint64_t ngx_http_iothub_identity_moved(uint64_t word, time_t then,
    time_t now);
ngx_uint_t ngx_http_iothub_identity_swap(ngx_http_iothub_identity_shm_t *shm,
    uint64_t *p, uint64_t old, uint64_t word);


#endif /* _NGX_HTTP_IOTHUB_IDENTITY_H_INCLUDED_ */
