
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_identity_lease.h"


/* a lease: device 16 | serial 24 | until 24, in ticks of 64 ms */

#define NGX_HTTP_IOTHUB_IDENTITY_UNTIL_MASK   0xffffff
#define NGX_HTTP_IOTHUB_IDENTITY_SERIAL_MASK  0xffffff
#define NGX_HTTP_IOTHUB_IDENTITY_SERIAL_SHIFT 24
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


static ngx_inline uint64_t *ngx_http_iothub_identity_lease(
    ngx_http_iothub_identity_shm_t *shm, uint64_t hash);
static uint64_t ngx_http_iothub_identity_lease_word(uint64_t owner,
    ngx_msec_t now_ms);


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
           & NGX_HTTP_IOTHUB_IDENTITY_UNTIL_MASK;

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

    owner = owner << NGX_HTTP_IOTHUB_IDENTITY_SERIAL_SHIFT
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

    return (owner & ~(uint64_t) NGX_HTTP_IOTHUB_IDENTITY_UNTIL_MASK)
           | (until & NGX_HTTP_IOTHUB_IDENTITY_UNTIL_MASK);
}
