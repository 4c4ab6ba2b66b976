
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * siphash: SipHash-2-4, Aumasson and Bernstein, https://131002.net/siphash/.
 * Pure.
 */

#ifndef _NGX_HTTP_IOTHUB_SIPHASH_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SIPHASH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    uint64_t   v0;
    uint64_t   v1;
    uint64_t   v2;
    uint64_t   v3;
} ngx_http_iothub_siphash_t;


/*
 * init() with the key, word() for each eight bytes, as load() reads them, and
 * final(), which returns the hash.  m: the bytes that fill no word; len: of
 * all bytes.
 */

void ngx_http_iothub_siphash_init(ngx_http_iothub_siphash_t *s, uint64_t k0,
    uint64_t k1);
void ngx_http_iothub_siphash_word(ngx_http_iothub_siphash_t *s, uint64_t m);
uint64_t ngx_http_iothub_siphash_final(ngx_http_iothub_siphash_t *s,
    uint64_t m, size_t len);
uint64_t ngx_http_iothub_siphash_load(const u_char *p);


#endif /* _NGX_HTTP_IOTHUB_SIPHASH_H_INCLUDED_ */
