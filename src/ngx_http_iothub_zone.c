
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_zone.h"
#include "ngx_http_iothub_identity_file.h"
#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_outcome.h"
#include "ngx_http_iothub_sas.h"


/* one more for each change of ngx_http_iothub_shm_t */

#define NGX_HTTP_IOTHUB_ZONE_VERSION   2

/* what the slab allocator keeps for itself, with room for small things */

#define NGX_HTTP_IOTHUB_ZONE_OVERHEAD  (8 * ngx_pagesize)

/* of all of a zone, the part that metrics may take */

#define NGX_HTTP_IOTHUB_ZONE_METRICS   32

/* milliseconds, and buckets: the largest cache is gone round in days */

#define NGX_HTTP_IOTHUB_ZONE_SWEEP     60000
#define NGX_HTTP_IOTHUB_ZONE_BUCKETS   4096


static ngx_int_t ngx_http_iothub_zone_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_int_t ngx_http_iothub_zone_credentials(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_hub_t *old);
static void ngx_http_iothub_zone_new_keys(ngx_http_iothub_shm_t *shm);
static ngx_int_t ngx_http_iothub_zone_format(ngx_shm_zone_t *shm_zone,
    ngx_http_iothub_hub_t *hub);
static ngx_http_iothub_metrics_t *ngx_http_iothub_zone_metrics(
    ngx_slab_pool_t *shpool, size_t size, ngx_core_conf_t *ccf);
static ngx_int_t ngx_http_iothub_zone_init_metrics(ngx_shm_zone_t *shm_zone,
    void *data);
static void ngx_http_iothub_zone_restore(ngx_shm_zone_t *shm_zone,
    ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_zone_read_state(ngx_shm_zone_t *shm_zone,
    ngx_file_t *file, ngx_http_iothub_hub_t *hub);
static void ngx_http_iothub_zone_sweep(ngx_event_t *ev);
static void ngx_http_iothub_zone_save_hub(ngx_cycle_t *cycle,
    ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_zone_write(void *data, const u_char *p,
    size_t len);


size_t
ngx_http_iothub_zone_min_size(void)
{
    return NGX_HTTP_IOTHUB_ZONE_OVERHEAD
           + ngx_align(ngx_http_iothub_metrics_size(1), ngx_pagesize)
           + ngx_align(ngx_http_iothub_identity_min_size(), ngx_pagesize);
}


ngx_int_t
ngx_http_iothub_zone_add(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    u_char     *p;
    ngx_str_t   name;

    name.len = sizeof("iothub   ") - 1 + hub->name.len
               + hub->registry.host.len + hub->messages.host.len;

    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_sprintf(name.data, "iothub %V %V %V", &hub->name,
                    &hub->registry.host, &hub->messages.host);
    name.len = p - name.data;

    hub->shm_zone = ngx_shared_memory_add(cf, &name, hub->zone_size,
                                          &ngx_http_iothub_module);
    if (hub->shm_zone == NULL) {
        return NGX_ERROR;
    }

    hub->shm_zone->init = ngx_http_iothub_zone_init;
    hub->shm_zone->data = hub;

    /* worker_processes may follow http{} */

    hub->ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                                ngx_core_module);

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_iothub_hub_t  *old = data;

    ngx_slab_pool_t        *shpool;
    ngx_http_iothub_hub_t  *hub;

    hub = shm_zone->data;

    if (old) {
        hub->shm = old->shm;

        if (hub->shm->version == NGX_HTTP_IOTHUB_ZONE_VERSION
            && ngx_http_iothub_identity_check(hub->shm->identity,
                                              hub->shm->identity_size)
               == NGX_OK)
        {
            if (hub->rate != old->rate || hub->burst != old->burst) {
                __atomic_store_n(&hub->shm->rate.word, 0, __ATOMIC_RELAXED);
            }

            if (ngx_http_iothub_zone_credentials(hub, old) != NGX_OK) {
                ngx_http_iothub_zone_new_keys(hub->shm);
            }

            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "identity cache of hub \"%V\" is damaged or of "
                      "another version of the module: restart nginx",
                      &hub->name);
        return NGX_ERROR;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        hub->shm = shpool->data;
        return NGX_OK;
    }

    if (ngx_http_iothub_zone_format(shm_zone, hub) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "zone of hub \"%V\" is too small or no random bytes "
                      "could be had", &hub->name);
        return NGX_ERROR;
    }

    if (hub->state_file.len) {
        ngx_http_iothub_zone_restore(shm_zone, hub);
    }

    return NGX_OK;
}


/* NGX_DECLINED: a key, or the policy that it is of, is another */

static ngx_int_t
ngx_http_iothub_zone_credentials(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_hub_t *old)
{
    if (hub->policy.len != old->policy.len
        || ngx_memcmp(hub->policy.data, old->policy.data, hub->policy.len)
           != 0
        || ngx_memcmp(hub->fingerprints, old->fingerprints,
                      sizeof(hub->fingerprints))
           != 0)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* what the hub said of the old keys holds nothing back any more */

static void
ngx_http_iothub_zone_new_keys(ngx_http_iothub_shm_t *shm)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {
        if (ngx_http_iothub_gate_reason(&shm->gates[i])
            == NGX_HTTP_IOTHUB_CREDENTIALS)
        {
            __atomic_store_n(&shm->gates[i].word, 0, __ATOMIC_RELAXED);
        }
    }

    ngx_http_iothub_gate_trust(&shm->suspect, 0);

    for (i = 0; i < NGX_HTTP_IOTHUB_ALARMS; i++) {
        __atomic_store_n(&shm->alarms[i], 0, __ATOMIC_RELAXED);
    }
}


static ngx_int_t
ngx_http_iothub_zone_format(ngx_shm_zone_t *shm_zone,
    ngx_http_iothub_hub_t *hub)
{
    u_char            key[16];
    size_t            len;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    hub->shm = ngx_slab_calloc(shpool, sizeof(ngx_http_iothub_shm_t));
    if (hub->shm == NULL) {
        return NGX_ERROR;
    }

    hub->shm->version = NGX_HTTP_IOTHUB_ZONE_VERSION;
    shpool->data = hub->shm;

    len = sizeof(" in iothub zone \"\"") + shm_zone->shm.name.len;

    shpool->log_ctx = ngx_slab_alloc(shpool, len);
    if (shpool->log_ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(shpool->log_ctx, " in iothub zone \"%V\"%Z",
                &shm_zone->shm.name);

    hub->shm->metrics = ngx_http_iothub_zone_metrics(shpool, hub->zone_size,
                                                     hub->ccf);
    if (hub->shm->metrics == NULL) {
        return NGX_ERROR;
    }

    /* all pages that are left, as one block */

    hub->shm->identity_size = shpool->pfree * ngx_pagesize;

    hub->shm->identity = ngx_slab_calloc(shpool, hub->shm->identity_size);
    if (hub->shm->identity == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_iothub_sas_random(key, sizeof(key)) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_iothub_identity_init(hub->shm->identity,
                                         hub->shm->identity_size, key);
}


/* a slot for each worker, as far as the size goes */

static ngx_http_iothub_metrics_t *
ngx_http_iothub_zone_metrics(ngx_slab_pool_t *shpool, size_t size,
    ngx_core_conf_t *ccf)
{
    size_t                      most;
    ngx_uint_t                  n;
    ngx_http_iothub_metrics_t  *metrics;

    most = size / NGX_HTTP_IOTHUB_ZONE_METRICS
           / sizeof(ngx_http_iothub_metrics_slot_t);

    n = ngx_min((ngx_uint_t) ccf->worker_processes,
                NGX_HTTP_IOTHUB_METRICS_SLOTS);
    n = ngx_max(ngx_min(n, most), 1);

    metrics = ngx_slab_calloc(shpool, ngx_http_iothub_metrics_size(n));

    if (metrics) {
        ngx_http_iothub_metrics_init(metrics, n, &shpool->mutex);
    }

    return metrics;
}


static void
ngx_http_iothub_zone_restore(ngx_shm_zone_t *shm_zone,
    ngx_http_iothub_hub_t *hub)
{
    ngx_int_t   rc;
    ngx_err_t   err;
    ngx_file_t  file;

    ngx_memzero(&file, sizeof(ngx_file_t));
    file.name = hub->state_file;
    file.log = shm_zone->shm.log;

    file.fd = ngx_open_file(file.name.data, NGX_FILE_RDONLY, NGX_FILE_OPEN,
                            0);

    if (file.fd == NGX_INVALID_FILE) {
        err = ngx_errno;

        if (err != NGX_ENOENT) {
            ngx_log_error(NGX_LOG_WARN, file.log, err,
                          ngx_open_file_n " \"%V\" failed, identity cache "
                          "of hub \"%V\" starts empty", &file.name,
                          &hub->name);
        }

        return;
    }

    rc = ngx_http_iothub_zone_read_state(shm_zone, &file, hub);

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_WARN, file.log, 0,
                      "state file \"%V\" is of another host or zone size, "
                      "identity cache of hub \"%V\" starts empty",
                      &file.name, &hub->name);
    }

    if (rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_WARN, file.log, 0,
                      "state file \"%V\" is damaged, identity cache of hub "
                      "\"%V\" starts empty", &file.name, &hub->name);
    }

    if (ngx_close_file(file.fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, file.log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", &file.name);
    }
}


static ngx_int_t
ngx_http_iothub_zone_read_state(ngx_shm_zone_t *shm_zone, ngx_file_t *file,
    ngx_http_iothub_hub_t *hub)
{
    u_char     *buf;
    off_t       size;
    ssize_t     n;
    ngx_int_t   rc;

    if (ngx_fd_info(file->fd, &file->info) == NGX_FILE_ERROR) {
        return NGX_ERROR;
    }

    size = ngx_file_size(&file->info);

    if (size <= 0 || (uint64_t) size > 2 * (uint64_t) hub->zone_size) {
        return NGX_ERROR;
    }

    buf = ngx_alloc(size, file->log);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    n = ngx_read_file(file, buf, size, 0);

    rc = NGX_ERROR;

    if (n == (ssize_t) size) {
        rc = ngx_http_iothub_identity_import(hub->shm->identity, buf, size,
                                             &shm_zone->shm.name, ngx_time());
    }

    ngx_free(buf);

    return rc;
}


ngx_int_t
ngx_http_iothub_zone_add_metrics(ngx_conf_t *cf,
    ngx_http_iothub_metrics_t **metrics)
{
    size_t           size;
    ngx_shm_zone_t  *shm_zone;

    static ngx_str_t  name = ngx_string("iothub");

    size = NGX_HTTP_IOTHUB_ZONE_OVERHEAD
           + ngx_align(ngx_http_iothub_metrics_size(1), ngx_pagesize);

    shm_zone = ngx_shared_memory_add(cf, &name, size,
                                     &ngx_http_iothub_module);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_http_iothub_zone_init_metrics;
    shm_zone->data = metrics;

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_zone_init_metrics(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_iothub_metrics_t  **old = data;

    ngx_slab_pool_t             *shpool;
    ngx_http_iothub_metrics_t  **metrics;

    metrics = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (old) {
        *metrics = *old;
        return NGX_OK;
    }

    if (shm_zone->shm.exists) {
        *metrics = shpool->data;
        return NGX_OK;
    }

    *metrics = ngx_slab_calloc(shpool, ngx_http_iothub_metrics_size(1));
    if (*metrics == NULL) {
        return NGX_ERROR;
    }

    ngx_http_iothub_metrics_init(*metrics, 1, &shpool->mutex);
    shpool->data = *metrics;

    return NGX_OK;
}


void
ngx_http_iothub_zone_init_worker(ngx_cycle_t *cycle, ngx_array_t *hubs)
{
    ngx_uint_t               i;
    ngx_http_iothub_hub_t  **hub;

    hub = hubs->elts;

    for (i = 0; i < hubs->nelts; i++) {

        hub[i]->counts = ngx_http_iothub_metrics_slot(hub[i]->shm->metrics,
                                                      ngx_worker);

        if (ngx_process == NGX_PROCESS_HELPER
            || (ngx_process == NGX_PROCESS_WORKER && ngx_worker != 0))
        {
            continue;
        }

        hub[i]->sweep.handler = ngx_http_iothub_zone_sweep;
        hub[i]->sweep.data = hub[i];
        hub[i]->sweep.log = cycle->log;
        hub[i]->sweep.cancelable = 1;

        ngx_add_timer(&hub[i]->sweep, NGX_HTTP_IOTHUB_ZONE_SWEEP);
    }
}


static void
ngx_http_iothub_zone_sweep(ngx_event_t *ev)
{
    ngx_http_iothub_hub_t  *hub;

    hub = ev->data;

    ngx_http_iothub_identity_sweep(hub->shm->identity,
                                   NGX_HTTP_IOTHUB_ZONE_BUCKETS, ngx_time());

    ngx_add_timer(ev, NGX_HTTP_IOTHUB_ZONE_SWEEP);
}


void
ngx_http_iothub_zone_save(ngx_cycle_t *cycle, ngx_array_t *hubs)
{
    ngx_uint_t               i;
    ngx_http_iothub_hub_t  **hub;

    hub = hubs->elts;

    for (i = 0; i < hubs->nelts; i++) {
        if (hub[i]->state_file.len && hub[i]->shm) {
            ngx_http_iothub_zone_save_hub(cycle, hub[i]);
        }
    }
}


static void
ngx_http_iothub_zone_save_hub(ngx_cycle_t *cycle, ngx_http_iothub_hub_t *hub)
{
    u_char      *name;
    ngx_int_t    rc;
    ngx_file_t   file;

    name = ngx_pnalloc(cycle->pool, hub->state_file.len + sizeof(".tmp"));
    if (name == NULL) {
        return;
    }

    ngx_memzero(&file, sizeof(ngx_file_t));
    file.name.data = name;
    file.name.len = ngx_sprintf(name, "%V.tmp%Z", &hub->state_file)
                    - name - 1;
    file.log = cycle->log;

    /* it holds the hash key: nobody else may read it */

    (void) ngx_delete_file(name);

    file.fd = ngx_open_tempfile(name, 1, 0600);

    if (file.fd == NGX_INVALID_FILE) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                      ngx_open_tempfile_n " \"%s\" failed, identity cache of "
                      "hub \"%V\" is not saved", name, &hub->name);
        return;
    }

    rc = ngx_http_iothub_identity_export(hub->shm->identity,
                                         &hub->shm_zone->shm.name, ngx_time(),
                                         ngx_http_iothub_zone_write, &file);

    if (ngx_close_file(file.fd) == NGX_FILE_ERROR) {
        rc = NGX_ERROR;
    }

    if (rc == NGX_OK
        && ngx_rename_file(name, hub->state_file.data) != NGX_FILE_ERROR)
    {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                  "state file \"%V\" of hub \"%V\" could not be written",
                  &hub->state_file, &hub->name);

    (void) ngx_delete_file(name);
}


static ngx_int_t
ngx_http_iothub_zone_write(void *data, const u_char *p, size_t len)
{
    ngx_file_t  *file = data;

    ssize_t  n;

    n = ngx_write_file(file, (u_char *) p, len, file->offset);

    return n == (ssize_t) len ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_http_iothub_zone_key(ngx_http_iothub_hub_t *hub)
{
    uint64_t  fingerprint;

    if (hub->nkeys == 1) {
        return 0;
    }

    fingerprint = __atomic_load_n(&hub->shm->key, __ATOMIC_RELAXED);

    return fingerprint == hub->fingerprints[1];
}


void
ngx_http_iothub_zone_key_works(ngx_http_iothub_hub_t *hub, ngx_uint_t key)
{
    uint64_t  fingerprint;

    fingerprint = hub->fingerprints[key];

    if (hub->nkeys > 1
        && __atomic_load_n(&hub->shm->key, __ATOMIC_RELAXED) != fingerprint)
    {
        __atomic_store_n(&hub->shm->key, fingerprint, __ATOMIC_RELAXED);
    }
}
