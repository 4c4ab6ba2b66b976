
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * registry: the requests to the hub's identity registry.
 *
 * https://learn.microsoft.com/rest/api/iothub/service/devices
 */

#ifndef _NGX_HTTP_IOTHUB_REGISTRY_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_REGISTRY_H_INCLUDED_


#include "ngx_http_iothub_exchange.h"


/*
 * Fill an exchange, whose hub and device_id are set.  NGX_OK or NGX_ERROR
 * (no memory).
 *
 * create: a PUT without If-Match, which creates and never changes: the hub
 * answers 409 if the identity exists.  With first, an answer is not waited
 * for as long, because the message can be sent without it.
 *
 * ask: a GET.
 */

ngx_int_t ngx_http_iothub_registry_create(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_uint_t first);
ngx_int_t ngx_http_iothub_registry_ask(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex);


#endif /* _NGX_HTTP_IOTHUB_REGISTRY_H_INCLUDED_ */
