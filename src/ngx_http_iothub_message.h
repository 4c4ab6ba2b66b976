
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * message: the request that brings a message to the hub, or several of one
 * device as a batch.
 */

#ifndef _NGX_HTTP_IOTHUB_MESSAGE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_MESSAGE_H_INCLUDED_


#include "ngx_http_iothub_exchange.h"


/* a message; all bytes belong to the pool of the request it runs on */

typedef struct {
    ngx_str_t                   body;

    /* the sender's own bytes that belong there, if any, not copied */

    ngx_str_t                   slice;
    size_t                      at;        /* in the body */

    ngx_http_iothub_header_t   *headers;   /* system and app properties */
    ngx_uint_t                  nheaders;
    ngx_uint_t                  blocks;    /* that the hub's quota counts */
} ngx_http_iothub_message_t;


/*
 * The size of a message as the hub counts it, in bytes: the body, the values
 * of all properties, and the names of application properties.  Sets blocks:
 * the daily quota is in blocks of 4 KB, of each message by itself.
 * https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
 */

size_t ngx_http_iothub_message_size(ngx_http_iothub_message_t *message);

/*
 * Fills an exchange, whose hub and device_id are set, with the sending of a
 * message.  The same message may be sent any number of times.
 * NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_message_send(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_http_iothub_message_t *message);

/*
 * A batch is one request and one answer for several messages of a device:
 * a JSON array of their bodies in base64 with their properties.  The hub
 * takes batches of 256 KB; its SDKs stay a little below.
 * https://learn.microsoft.com/rest/api/iothub/device/send-device-event
 */

#define NGX_HTTP_IOTHUB_MESSAGE_BATCH_MAX  (255 * 1024)

/*
 * What a message, which has no slice, adds to the size of a batch, in bytes,
 * at the most.
 */

size_t ngx_http_iothub_message_batch_size(ngx_http_iothub_message_t *message);

/*
 * Makes one message of n messages, from the pool.  Their sizes and two must
 * not exceed the maximum, and their blocks are set.  NGX_OK or NGX_ERROR
 * (no memory).
 */

ngx_int_t ngx_http_iothub_message_batch(ngx_pool_t *pool,
    ngx_http_iothub_message_t **messages, ngx_uint_t n,
    ngx_http_iothub_message_t *batch);

/*
 * The path and query of a request about a device: its id as one escaped
 * segment, then the suffix.  Used by the registry room, too.
 */

ngx_int_t ngx_http_iothub_message_uri(ngx_pool_t *pool,
    ngx_http_iothub_hub_t *hub, ngx_str_t *device_id, ngx_str_t *suffix,
    ngx_str_t *uri);

/*
 * The body as one text: itself, or a copy from the pool if it has a slice.
 * NGX_OK or NGX_ERROR (no memory).
 */

ngx_int_t ngx_http_iothub_message_whole(ngx_pool_t *pool,
    ngx_http_iothub_message_t *message, ngx_str_t *text);

/* A body of one buffer for an exchange.  NGX_OK or NGX_ERROR. */

ngx_int_t ngx_http_iothub_message_body(ngx_pool_t *pool,
    ngx_http_iothub_exchange_t *ex, ngx_str_t *text);


#endif /* _NGX_HTTP_IOTHUB_MESSAGE_H_INCLUDED_ */
