
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
 * that jumps makes states end early, or last a minute longer.  Times of the
 * leases, called "now_ms", are ngx_current_msec, which never jumps.
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

/* milliseconds; an owner renews each second */

#define NGX_HTTP_IOTHUB_IDENTITY_LEASE_TIME   5000

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
 * Takes a piece of an export.  Returns NGX_OK, or anything else to stop.
 */

typedef ngx_int_t (*ngx_http_iothub_identity_write_pt)(void *data,
    const u_char *p, size_t len);


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
 * else will be told so for ASK_TIME; NGX_DECLINED: it has been asked about
 * within that time.  Kept apart from the device's state, in a word of the
 * same bucket.
 */
ngx_int_t ngx_http_iothub_identity_ask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash, time_t now);

/*
 * Takes an ask back: the question got no answer, the next may ask again.
 */
void ngx_http_iothub_identity_unask(ngx_http_iothub_identity_shm_t *shm,
    uint64_t hash);

/*
 * Leases serialise creations: take the lease, LOOK UP AGAIN, create, set
 * SETTLING, give the lease back, in this order.  A lease is a word
 *
 *     device 16 | serial 24 | until 24   0 is a free lease
 *
 * The serial is drawn from one counter of the table at each take, so no two
 * takes share it for long, be they of two workers or of two deliveries of
 * one worker; until is in units of 64 ms, modulo 2^24 (12 days).  The
 * token is the word itself: renew and release compare the whole word, so
 * what was lost to another can be neither prolonged nor freed.  Whoever
 * finds the word held waits, even if two devices share it; a part of the
 * device's hash tells for whom.
 */

/* Which of the leases a device has: devices for which it is equal share it. */
#define ngx_http_iothub_identity_lease_of(hash)                               \
    ((hash) % NGX_HTTP_IOTHUB_IDENTITY_LEASES)

/*
 * Takes the lease for a device for LEASE_TIME.  NGX_OK: it is the caller's,
 * *token is to be kept for the two functions below.  NGX_BUSY: it is held for
 * this device, NGX_AGAIN: for another; *token is not touched.  A lease that
 * ran out, or whose time cannot be true, is free.
 */
ngx_int_t ngx_http_iothub_identity_lease_take(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash, ngx_msec_t now_ms,
    uint64_t *token);

/*
 * Prolongs a lease to LEASE_TIME from now and updates *token.  Works for one
 * that ran out too, as long as nobody took it.  NGX_DECLINED: it is
 * another's now, and the creation is no longer the caller's alone.
 */
ngx_int_t ngx_http_iothub_identity_lease_renew(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash, uint64_t *token,
    ngx_msec_t now_ms);

/*
 * Gives a lease back.  NGX_DECLINED: it was no longer the caller's, and
 * nothing was changed; so releasing twice is harmless.
 */
ngx_int_t ngx_http_iothub_identity_lease_release(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash, uint64_t token);

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
 * Writes the table as bytes to the callback, in pieces of up to 4 KB, while
 * others may go on using it.  They hold the hash key: keep them as private
 * as the zone.  host is the hub the table is of, up to 1023 bytes.  Returns
 * NGX_OK, NGX_ERROR if host is too long, or what the callback returned.
 * Leases are not written.
 */
ngx_int_t ngx_http_iothub_identity_export(ngx_http_iothub_identity_shm_t *shm,
    const ngx_str_t *host, time_t now,
    ngx_http_iothub_identity_write_pt write, void *data);

/*
 * Fills an empty table, which nobody else uses yet, from the bytes of an
 * export, and takes over their hash key.  Times are moved on by the time
 * that has passed since.  Returns
 *
 *   NGX_OK        the table is as it was, less what ran out
 *   NGX_DECLINED  whole, but of another host, version, or size of table
 *   NGX_ERROR     damaged: cut short, changed, or never an export
 *
 * In the latter two cases the table is untouched: empty, with its own key.
 */
ngx_int_t ngx_http_iothub_identity_import(ngx_http_iothub_identity_shm_t *shm,
    const u_char *p, size_t len, const ngx_str_t *host, time_t now);


#endif /* _NGX_HTTP_IOTHUB_IDENTITY_H_INCLUDED_ */
