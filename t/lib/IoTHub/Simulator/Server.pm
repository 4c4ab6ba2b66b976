# Copyright (C) the ngx_http_iothub_module authors

# Listeners and their connections.

package IoTHub::Simulator::Server;

use v5.36;
use strict;
use warnings;

use IO::Socket::IP ();
use IO::Socket::SSL ();
use Socket qw(IPPROTO_TCP SOMAXCONN TCP_NODELAY);
use Time::HiRes qw(time);

use IoTHub::Simulator::Connection;
use IoTHub::Simulator::Control;

use constant ACCEPT_AT_ONCE => 64;


# listen: ADDR:PORT each.  tls: undef, or { cert, key, version }.
# idle: seconds after which an unused connection is closed.

sub new($class, %arg) {
    my $self = bless {
        loop        => $arg{loop},
        hub         => $arg{hub},
        idle        => $arg{idle} // 120,
        connections => {},
        accepted    => 0,
        controls    => 0,
        last_id     => 0,
    }, $class;

    $self->{control} = IoTHub::Simulator::Control->new($self);
    $self->{tls_context} = tls_context($arg{tls}) if $arg{tls};
    $self->{listeners} =
        [map { $self->listen_on($_) } @{ $arg{listen} }];

    $self->{loop}->every(0.5, sub { $self->close_idle });
    return $self;
}


# ALPN is not offered: IoT Hub speaks HTTP/1.1 only.

sub tls_context($tls) {
    my $context = IO::Socket::SSL::SSL_Context->new(
        SSL_server    => 1,
        SSL_version   => 'SSLv23:!SSLv2:!SSLv3:!TLSv1:!TLSv1_1'
            . ($tls->{version} eq '1.2' ? ':!TLSv1_3' : ''),
        SSL_cert_file => $tls->{cert},
        SSL_key_file  => $tls->{key},
    );
    die "TLS: $IO::Socket::SSL::SSL_ERROR\n" unless $context;
    return $context;
}


sub listen_on($self, $where) {
    my ($host, $port) = $where =~ /^\[?(.*?)\]?:(\d+)\z/
        or die "--listen $where: ADDR:PORT\n";

    my $socket = IO::Socket::IP->new(
        LocalHost => $host,
        LocalPort => $port,
        Listen    => SOMAXCONN,
        ReuseAddr => 1,
        Blocking  => 0,
    ) or die "--listen $where: $@\n";

    my $listener = IoTHub::Simulator::Listener->new($socket, $self);
    $self->{loop}->add(fileno $socket, $listener);
    $self->{loop}->want_read(fileno $socket, 1);
    return $listener;
}


sub ports($self) {
    return map { $_->{socket}->sockport } @{ $self->{listeners} };
}


sub accept_from($self, $listener) {
    for (1 .. ACCEPT_AT_ONCE) {
        my $socket = $listener->accept or return;
        $socket->blocking(0);
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;

        my $id = ++$self->{last_id};
        $self->{accepted}++;
        $self->{connections}{$id} = IoTHub::Simulator::Connection->new(
            server => $self,
            loop   => $self->{loop},
            socket => $socket,
            id     => $id,
        );
    }
    return;
}


sub closed($self, $connection) {
    delete $self->{connections}{ $connection->{id} };
    $self->{controls}++ if $connection->{control};
    return;
}


# Those of the control calls are not counted.

sub counts($self) {
    my @open     = values %{ $self->{connections} };
    my $controls = grep { $_->{control} } @open;
    return {
        accepted => $self->{accepted} - $self->{controls} - $controls,
        open     => @open - $controls,
    };
}


sub close_idle($self) {
    my $limit = time - $self->{idle};
    for my $connection (values %{ $self->{connections} }) {
        $connection->close_now
            if $connection->{active_at} < $limit && $connection->idle;
    }
    return;
}


# All but those of control calls; returns how many.

sub close_unused($self) {
    my @unused = grep { !$_->{control} && $_->idle }
        values %{ $self->{connections} };
    $_->close_now for @unused;
    return scalar @unused;
}


package IoTHub::Simulator::Listener;

use v5.36;
use strict;
use warnings;


sub new($class, $socket, $server) {
    return bless { socket => $socket, server => $server }, $class;
}


sub on_readable($self) {
    $self->{server}->accept_from($self->{socket});
    return;
}

1;
