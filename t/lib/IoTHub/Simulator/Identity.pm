# Copyright (C) the ngx_http_iothub_module authors

# One device's entry in the identity registry.

package IoTHub::Simulator::Identity;

use v5.36;
use strict;
use warnings;

use MIME::Base64 qw(decode_base64 encode_base64);
use POSIX qw(strftime);

use IoTHub::Simulator::JSON qw(json_object);

# https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry
# and the pattern of the C# SDK, which also has : and ;

my $LEGAL_ID = qr/^[A-Za-z0-9\-:.+%_#*?!(),=\@;\$']{1,128}\z/;

my %AUTHENTICATION = map { $_ => 1 }
    qw(sas selfSigned certificateAuthority none);

use constant {
    NEVER             => '0001-01-01T00:00:00',
    STATUS_REASON_MAX => 128,
};


sub legal_id($class, $id) {
    return !ref $id && $id =~ $LEGAL_ID && $id !~ /^\.\.?\z/;
}


# What is wrong with the members of a Device, or undef.

sub wrong($class, $members) {
    my $status = $members->{status} // 'enabled';
    return 'status is neither enabled nor disabled.'
        unless $status =~ /^(?:en|dis)abled\z/i;

    my $reason = $members->{statusReason};
    return 'statusReason is too long.'
        if defined $reason && length $reason > STATUS_REASON_MAX;

    my $authentication = $members->{authentication} // {};
    return 'authentication is not an object.'
        unless ref $authentication eq 'HASH';
    return 'There is no such authentication type.'
        unless $AUTHENTICATION{ $authentication->{type} // 'sas' };

    my $keys = $authentication->{symmetricKey} // {};
    return 'symmetricKey is not an object.' unless ref $keys eq 'HASH';

    for my $name (qw(primaryKey secondaryKey)) {
        my $key = $keys->{$name} // '';
        next if $key eq '';
        return "$name is not base64."
            unless $key =~ m{^(?:[A-Za-z0-9+/]{4})*
                             (?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\z}x;
        my $bytes = length decode_base64($key);
        return "$name is not 16 to 64 bytes." if $bytes < 16 || $bytes > 64;
    }

    return undef;
}


# Members that are not given are made up, as the hub does; of the identity
# that was there before, only its generation is kept.  Whether the real hub
# keeps the keys of an update that gives none is not known: here they are
# new, so that who updates to be sure of a device finds out.

sub new($class, $id, $members, $before = undef) {
    my $authentication = $members->{authentication} // {};
    my $keys           = $authentication->{symmetricKey} // {};
    my $thumbprints    = $authentication->{x509Thumbprint} // {};
    my $type           = $authentication->{type}
        // (%$thumbprints ? 'selfSigned' : 'sas');
    my $status = lc($members->{status} // 'enabled');
    my $now    = strftime '%Y-%m-%dT%H:%M:%S.0000000Z', gmtime;

    my $self = bless {
        id         => $id,
        generation => $before ? $before->{generation} : digits(18),
        etag       => encode_base64(digits(9), ''),
        status     => $status,
        reason     => $members->{statusReason},
        status_at  => !$before || $before->{status} eq $status
            ? NEVER : $now,
        type        => $type,
        thumbprints => $thumbprints,
        edge  => $members->{capabilities}{iotEdge} ? \1 : \0,
        scope => $members->{deviceScope},
    }, $class;

    for my $which (qw(primary secondary)) {
        my $given = $keys->{"${which}Key"} // '';
        $self->{$which} = $type ne 'sas' ? undef
            : $given ne ''               ? $given
            :                              new_key();
    }

    return $self;
}


sub digits($n) { return join '', 1, map { int rand 10 } 2 .. $n }


# Nobody relies on the keys of a simulator, so rand() is good enough.

sub new_key() {
    return encode_base64(join('', map { chr int rand 256 } 1 .. 32), '');
}


sub signing_keys($self) {
    return map { decode_base64($_) } grep { defined } @$self{qw(primary
        secondary)};
}


sub set_status($self, $status) {
    $self->{status}    = lc $status;
    $self->{etag}      = encode_base64(digits(9), '');
    $self->{status_at} = strftime '%Y-%m-%dT%H:%M:%S.0000000Z', gmtime;
    return;
}


sub disabled($self) { return $self->{status} eq 'disabled' }


sub json_members($self) {
    return json_object(
        deviceId                   => $self->{id},
        generationId               => $self->{generation},
        etag                       => $self->{etag},
        connectionState            => 'Disconnected',
        status                     => $self->{status},
        statusReason               => $self->{reason},
        connectionStateUpdatedTime => NEVER,
        statusUpdatedTime          => $self->{status_at},
        lastActivityTime           => $self->{active_at} // NEVER,
        cloudToDeviceMessageCount  => 0,
        authentication             => json_object(
            symmetricKey => json_object(
                primaryKey   => $self->{primary},
                secondaryKey => $self->{secondary},
            ),
            x509Thumbprint => json_object(
                map { ($_ => $self->{thumbprints}{$_}) }
                    qw(primaryThumbprint secondaryThumbprint)
            ),
            type => $self->{type},
        ),
        capabilities => json_object(iotEdge => $self->{edge}),
        (defined $self->{scope} ? (deviceScope => $self->{scope}) : ()),
    );
}

1;
