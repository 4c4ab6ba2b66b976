
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * zone: a hub's shared memory: identity cache, gates and rate, the key that
 * works, and metrics.  It is kept over a reload; the cache is kept over a
 * restart in a state file, if there is one.
 */

#ifndef _NGX_HTTP_IOTHUB_ZONE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_ZONE_H_INCLUDED_


#include "ngx_http_iothub_hub.h"
#include "ngx_http_iothub_gate.h"
#include "ngx_http_iothub_identity.h"
#include "ngx_http_iothub_metrics.h"


/* what is said once a minute, by kind: see the alarm room */

typedef enum {
    NGX_HTTP_IOTHUB_ALARM_KEYS = 0,
    NGX_HTTP_IOTHUB_ALARM_CONNECT,
    NGX_HTTP_IOTHUB_ALARM_READ,
    NGX_HTTP_IOTHUB_ALARM_WRITE,
    NGX_HTTP_IOTHUB_ALARM_CLOCK,
    NGX_HTTP_IOTHUB_ALARMS
} ngx_http_iothub_alarm_e;


/* the gates of a hub: see the throttle room */

typedef enum {
    NGX_HTTP_IOTHUB_GATE_REGISTRY = 0,
    NGX_HTTP_IOTHUB_GATE_SEND,
    NGX_HTTP_IOTHUB_GATE_QUOTA,
    NGX_HTTP_IOTHUB_GATES
} ngx_http_iothub_gate_e;


struct ngx_http_iothub_shm_s {
    uint64_t                         version;    /* of this structure */
    size_t                           identity_size;
    ngx_http_iothub_identity_shm_t  *identity;
    ngx_http_iothub_metrics_t       *metrics;

    /*
     * The fingerprint of the key that the hub accepted while it refused
     * another, 0 for none: then the primary is tried first.
     */
    uint64_t                         key;

    ngx_http_iothub_gate_rate_t      rate;       /* of creations */
    ngx_http_iothub_gate_t           gates[NGX_HTTP_IOTHUB_GATES];
    ngx_http_iothub_gate_suspect_t   suspect;    /* refused messages */
    uint64_t                         alarms[NGX_HTTP_IOTHUB_ALARMS];
};


/* The smallest zone, in bytes. */

size_t ngx_http_iothub_zone_min_size(void);

/*
 * Adds the zone of a hub whose endpoints are known.  It is named after the
 * hub and its hosts: with another host, another zone, which starts empty.
 */

ngx_int_t ngx_http_iothub_zone_add(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);

/*
 * Adds a zone for the metrics of webhooks whose hub is not known: a variable
 * names none.  metrics is set when it is there.
 */

ngx_int_t ngx_http_iothub_zone_add_metrics(ngx_conf_t *cf,
    ngx_http_iothub_metrics_t **metrics);

/*
 * Finds each hub's metrics of this worker; in one of the workers, starts
 * tidying the caches, once a minute.
 */

void ngx_http_iothub_zone_init_worker(ngx_cycle_t *cycle, ngx_array_t *hubs);

/* Saves the state files, when the master (or the single process) exits. */

void ngx_http_iothub_zone_save(ngx_cycle_t *cycle, ngx_array_t *hubs);

/*
 * Which key to sign with first, 0 or 1: the one that worked, else the
 * primary.
 */

ngx_uint_t ngx_http_iothub_zone_key(ngx_http_iothub_hub_t *hub);

/* Remembers, for all workers, that a key works. */

void ngx_http_iothub_zone_key_works(ngx_http_iothub_hub_t *hub,
    ngx_uint_t key);


#endif /* _NGX_HTTP_IOTHUB_ZONE_H_INCLUDED_ */
