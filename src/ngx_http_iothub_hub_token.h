
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * hub_token: a hub's tokens, as a worker keeps them until they are due.  How
 * one is signed is in sas.
 */

#ifndef _NGX_HTTP_IOTHUB_HUB_TOKEN_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_HUB_TOKEN_H_INCLUDED_


#include "ngx_http_iothub_hub.h"


/*
 * Makes room for the tokens of an endpoint: the registry's first.  NGX_OK, or
 * NGX_ERROR if there is no memory.
 */

ngx_int_t ngx_http_iothub_hub_tokens(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_http_iothub_endpoint_t *endpoint);

/*
 * The Authorization value for an exchange with one of the hub's endpoints,
 * signed with key 0 or 1 and valid from now on; a token is signed once and
 * shared by all requests of the worker until 3/4 of its life have passed.
 * With token_scope device, a token for this device is signed into pool.
 * The value may be overwritten once the event loop goes on: copy it, or use
 * it at once.  NGX_ERROR if OpenSSL failed or there is no memory.
 */

ngx_int_t ngx_http_iothub_hub_token(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_e endpoint, ngx_uint_t key,
    ngx_str_t *device_id, ngx_pool_t *pool, ngx_str_t *token);


#endif /* _NGX_HTTP_IOTHUB_HUB_TOKEN_H_INCLUDED_ */
