
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * Unit test of the tokens of a hub: when a token is used again, and when a
 * new one is signed.  The clock is nginx's cached one, which is set by hand.
 */

#include "tap.h"

#include "ngx_http_iothub_hub_token.h"
#include "ngx_http_iothub_sas.h"


#define NOW  1763874367


static ngx_pool_t             *pool;
static ngx_http_iothub_hub_t   hub;
static ngx_time_t              clock_now;

static ngx_http_iothub_metrics_counts_t  counts;


static void
set_key(ngx_uint_t i, const char *text)
{
    hub.keys[i].data = (u_char *) text;
    hub.keys[i].len = strlen(text);
    hub.nkeys = i + 1;
}


static void
set_endpoint(ngx_http_iothub_endpoint_t *endpoint, const char *name)
{
    ngx_uint_t  i;

    endpoint->name.data = (u_char *) name;
    endpoint->name.len = strlen(name);
    endpoint->sr = endpoint->name;

    endpoint->tokens = ngx_pcalloc(pool, NGX_HTTP_IOTHUB_KEYS
                                     * sizeof(ngx_http_iothub_token_cache_t));

    for (i = 0; i < NGX_HTTP_IOTHUB_KEYS; i++) {
        endpoint->tokens[i].size = ngx_http_iothub_sas_token_size(
                                       &endpoint->sr, &hub.policy);
        endpoint->tokens[i].buf = ngx_pnalloc(pool,
                                              endpoint->tokens[i].size);
    }
}


/* the expiry of the token at a time, from its text */

static long long
expiry(ngx_http_iothub_endpoint_e endpoint, ngx_uint_t key, time_t now)
{
    char       *se;
    char        text[1024];
    ngx_str_t   token, id;

    clock_now.sec = now;
    ngx_str_set(&id, "e00fce68");

    if (ngx_http_iothub_hub_token(&hub, endpoint, key, &id, pool, &token)
        != NGX_OK
        || token.len >= sizeof(text))
    {
        return -1;
    }

    ngx_memcpy(text, token.data, token.len);
    text[token.len] = '\0';

    se = strstr(text, "&se=");

    return se ? atoll(se + 4) : -1;
}


static void
test_renewal(void)
{
    hub.token_lifetime = 60;

    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW), NOW + 60,
       "a token lasts its life");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 1), NOW + 60,
       "it is used again");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 44), NOW + 60,
       "until just before 3/4 of its life");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 45), NOW + 105,
       "at 3/4 a new one is signed");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 89), NOW + 105,
       "which is used again");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 10000), NOW + 10060,
       "after a long silence a new one is signed");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 9999), NOW + 10059,
       "and when the clock was set back");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW - 86400), NOW - 86340,
       "even by a day");
}


static void
test_apart(void)
{
    hub.token_lifetime = 3600;

    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 0, NOW), NOW + 3600,
       "the registry's host has a token of its own");
    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 1, NOW + 2), NOW + 3602,
       "each key has a token of its own");
    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 0, NOW + 2699), NOW + 3600,
       "neither makes the other be signed anew");
    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 1, NOW + 2701), NOW + 3602,
       "each has its own age");
}


static void
test_device(void)
{
    hub.token_scope_device = 1;

    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 100), NOW + 3700,
       "a device's token is signed now");
    is(expiry(NGX_HTTP_IOTHUB_MESSAGES, 0, NOW + 101), NOW + 3701,
       "and anew each time");
    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 0, NOW + 101), NOW + 3600,
       "the registry's is kept");
}


static void
test_failure(void)
{
    ngx_str_t  key;

    hub.token_scope_device = 0;

    key = hub.keys[0];
    ngx_str_null(&hub.keys[0]);

    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 0, NOW + 5000), -1,
       "what can not be signed is an error");

    hub.keys[0] = key;

    is(expiry(NGX_HTTP_IOTHUB_REGISTRY, 0, NOW + 5000), NOW + 8600,
       "that leaves no broken token behind");
}


int
main(void)
{
    static ngx_log_t  log;

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, &log);

    ngx_cached_time = &clock_now;
    hub.counts = &counts;

    ngx_str_set(&hub.policy, "gateway");
    set_key(0, "the primary key");
    set_key(1, "the secondary key");
    set_endpoint(&hub.registry, "contoso.azure-devices.net");
    set_endpoint(&hub.messages, "devices.example.com");

    test_renewal();
    test_apart();
    test_device();
    test_failure();

    ngx_destroy_pool(pool);

    return done_testing();
}
