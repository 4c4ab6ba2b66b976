
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_siphash.h"


#define ngx_http_iothub_siphash_rotl(x, n)                                    \
    (((x) << (n)) | ((x) >> (64 - (n))))


static ngx_inline void ngx_http_iothub_siphash_round(
    ngx_http_iothub_siphash_t *s);


void
ngx_http_iothub_siphash_init(ngx_http_iothub_siphash_t *s, uint64_t k0,
    uint64_t k1)
{
    s->v0 = k0 ^ 0x736f6d6570736575ULL;
    s->v1 = k1 ^ 0x646f72616e646f6dULL;
    s->v2 = k0 ^ 0x6c7967656e657261ULL;
    s->v3 = k1 ^ 0x7465646279746573ULL;
}


void
ngx_http_iothub_siphash_word(ngx_http_iothub_siphash_t *s, uint64_t m)
{
    s->v3 ^= m;
    ngx_http_iothub_siphash_round(s);
    ngx_http_iothub_siphash_round(s);
    s->v0 ^= m;
}


uint64_t
ngx_http_iothub_siphash_final(ngx_http_iothub_siphash_t *s, uint64_t m,
    size_t len)
{
    ngx_http_iothub_siphash_word(s, m | (uint64_t) len << 56);

    s->v2 ^= 0xff;
    ngx_http_iothub_siphash_round(s);
    ngx_http_iothub_siphash_round(s);
    ngx_http_iothub_siphash_round(s);
    ngx_http_iothub_siphash_round(s);

    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}


uint64_t
ngx_http_iothub_siphash_load(const u_char *p)
{
    uint64_t  m;

    ngx_memcpy(&m, p, sizeof(m));

#if !(NGX_HAVE_LITTLE_ENDIAN)
    m = __builtin_bswap64(m);
#endif

    return m;
}


static ngx_inline void
ngx_http_iothub_siphash_round(ngx_http_iothub_siphash_t *s)
{
    s->v0 += s->v1;
    s->v1 = ngx_http_iothub_siphash_rotl(s->v1, 13) ^ s->v0;
    s->v0 = ngx_http_iothub_siphash_rotl(s->v0, 32);

    s->v2 += s->v3;
    s->v3 = ngx_http_iothub_siphash_rotl(s->v3, 16) ^ s->v2;

    s->v0 += s->v3;
    s->v3 = ngx_http_iothub_siphash_rotl(s->v3, 21) ^ s->v0;

    s->v2 += s->v1;
    s->v1 = ngx_http_iothub_siphash_rotl(s->v1, 17) ^ s->v2;
    s->v2 = ngx_http_iothub_siphash_rotl(s->v2, 32);
}
