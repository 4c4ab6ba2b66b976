
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * identity_lease: who creates an identity.
 *
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
 *
 * Times, called "now_ms", are ngx_current_msec, which never jumps.  Pure, as
 * identity is.
 */


#ifndef _NGX_HTTP_IOTHUB_IDENTITY_LEASE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_IDENTITY_LEASE_H_INCLUDED_


#include "ngx_http_iothub_identity.h"


/* milliseconds; an owner renews each second */

#define NGX_HTTP_IOTHUB_IDENTITY_LEASE_TIME   5000


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


#endif /* _NGX_HTTP_IOTHUB_IDENTITY_LEASE_H_INCLUDED_ */
