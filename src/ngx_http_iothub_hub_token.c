
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_hub_token.h"
#include "ngx_http_iothub_metrics.h"
#include "ngx_http_iothub_sas.h"


static ngx_int_t ngx_http_iothub_hub_device_token(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint, ngx_uint_t key,
    ngx_str_t *device_id, ngx_pool_t *pool, ngx_str_t *token);


ngx_int_t
ngx_http_iothub_hub_tokens(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint)
{
    u_char                      *p;
    size_t                       size;
    ngx_uint_t                   i;
    ngx_http_iothub_endpoint_t  *first;

    first = &hub->registry;

    if (endpoint != first
        && endpoint->name.len == first->name.len
        && ngx_strncmp(endpoint->name.data, first->name.data,
                       first->name.len)
           == 0)
    {
        endpoint->sr = first->sr;
        endpoint->tokens = first->tokens;
        return NGX_OK;
    }

    endpoint->tokens = ngx_pcalloc(cf->pool, NGX_HTTP_IOTHUB_KEYS
                                     * sizeof(ngx_http_iothub_token_cache_t));
    if (endpoint->tokens == NULL) {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(cf->pool,
                    ngx_http_iothub_sas_escaped_size(&endpoint->name));
    if (p == NULL) {
        return NGX_ERROR;
    }

    endpoint->sr.data = p;
    endpoint->sr.len = ngx_http_iothub_sas_escape(p, &endpoint->name) - p;

    size = ngx_http_iothub_sas_token_size(&endpoint->sr, &hub->policy);

    for (i = 0; i < hub->nkeys; i++) {
        endpoint->tokens[i].buf = ngx_pnalloc(cf->pool, size);
        if (endpoint->tokens[i].buf == NULL) {
            return NGX_ERROR;
        }

        endpoint->tokens[i].size = size;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_hub_token(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_e which, ngx_uint_t key, ngx_str_t *device_id,
    ngx_pool_t *pool, ngx_str_t *token)
{
    u_char                         *end;
    time_t                          now;
    ngx_http_iothub_endpoint_t     *endpoint;
    ngx_http_iothub_token_cache_t  *cache;

    endpoint = ngx_http_iothub_hub_endpoint(hub, which);

    if (which == NGX_HTTP_IOTHUB_MESSAGES && hub->token_scope_device) {
        return ngx_http_iothub_hub_device_token(hub, endpoint, key,
                                                device_id, pool, token);
    }

    cache = &endpoint->tokens[key];
    now = ngx_time();

    /* a clock that was set back makes a token's age unknown */

    if (cache->value.len == 0 || now >= cache->renew
        || now < cache->signed_at)
    {
        end = ngx_http_iothub_sas_token(cache->buf, cache->buf + cache->size,
                                        &endpoint->sr, &hub->policy,
                                        &hub->keys[key],
                                        now + hub->token_lifetime);
        if (end == NULL) {
            cache->value.len = 0;
            return NGX_ERROR;
        }

        cache->value.data = cache->buf;
        cache->value.len = end - cache->buf;
        cache->signed_at = now;
        cache->renew = now + hub->token_lifetime * 3 / 4;

        ngx_http_iothub_metrics_happened(&hub->counts->signed_at, now);
    }

    *token = cache->value;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_hub_device_token(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint, ngx_uint_t key,
    ngx_str_t *device_id, ngx_pool_t *pool, ngx_str_t *token)
{
    u_char     *p, *end;
    size_t      size;
    ngx_str_t   resource, sr;

    /* sr is host/devices/id, escaped as a whole, as Node and Python do */

    resource.len = endpoint->name.len + sizeof("/devices/") - 1
                   + device_id->len;
    resource.data = ngx_pnalloc(pool, resource.len);
    if (resource.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(resource.data, "%V/devices/%V", &endpoint->name, device_id);

    sr.data = ngx_pnalloc(pool, ngx_http_iothub_sas_escaped_size(&resource));
    if (sr.data == NULL) {
        return NGX_ERROR;
    }

    sr.len = ngx_http_iothub_sas_escape(sr.data, &resource) - sr.data;

    size = ngx_http_iothub_sas_token_size(&sr, &hub->policy);

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    end = ngx_http_iothub_sas_token(p, p + size, &sr, &hub->policy,
                                    &hub->keys[key],
                                    ngx_time() + hub->token_lifetime);
    if (end == NULL) {
        return NGX_ERROR;
    }

    ngx_http_iothub_metrics_happened(&hub->counts->signed_at, ngx_time());

    token->data = p;
    token->len = end - p;

    return NGX_OK;
}
