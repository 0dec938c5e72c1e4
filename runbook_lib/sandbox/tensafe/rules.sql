-- Rules, one of them switched off.

CREATE RULE active_users_deactivate AS ON DELETE TO public.active_users
    DO INSTEAD UPDATE public.users SET is_active = false WHERE id = OLD.id AND users.role NOT IN ('owner', 'service');
CREATE RULE settings_history_keep AS ON DELETE TO ops.settings_history DO INSTEAD NOTHING;
CREATE RULE heartbeats_tell AS ON INSERT TO ops.heartbeats WHERE NEW.load > 100 DO ALSO UPDATE ops.feature_flags SET rollout = 0 WHERE id = 1;
ALTER TABLE ops.heartbeats DISABLE RULE heartbeats_tell;
